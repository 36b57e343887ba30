//! `[[callers]]`: who may call, and who may only look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::StartRefusal;
use service::admin::AdminConfig;

/// Most sections: each request is held against all of them.
const MAX_CALLERS: usize = 64;

/// Longest name of a caller, bytes.
const MAX_NAME: usize = 64;

/// Most patterns of one caller.
const MAX_PATTERNS: usize = 256;

/// One `[[callers]]` section, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerSection {
    /// By which its calls are told apart from those of others.
    pub name: String,
    /// `deploy`, `execute`, `read` or `stop`.
    pub role: CallerRole,
    /// File with its bearer token, readable by its owner only.
    pub token_file: Option<PathBuf>,
    /// Subjects of its client certificates, whole.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Agents that it may call or deploy: ids, or the beginning of ids and `*`; absent: every one.
    pub agents: Option<Vec<String>>,
}

/// What a caller may do, and nothing else. Administrators are those of `[admin]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallerRole {
    /// Load releases, unload them and say which one serves, and read what is about them.
    Deploy,
    /// Call agents, and read what is about them.
    Execute,
    /// Read everything, and call nothing: an auditor.
    Read,
    /// End calls and hold releases, and read everything: whoever answers to an incident.
    Stop,
}

/// The same, as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSettings {
    /// By which its calls are told apart from those of others.
    pub name: String,
    /// What it may do.
    pub role: CallerRole,
    /// How it is recognised.
    pub who: AdminConfig,
    /// Agents that it may call or deploy; absent: every one.
    pub agents: Option<Vec<String>>,
}

/// Checks all sections. `base` is the folder that relative paths start from.
///
/// # Errors
///
/// A section that nobody could use, or that two readers would understand differently.
pub(super) fn validate(
    sections: Vec<CallerSection>,
    admin: &AdminConfig,
    base: &Path,
) -> Result<Vec<CallerSettings>, StartRefusal> {
    if sections.is_empty() {
        return Ok(Vec::new());
    }
    if *admin == AdminConfig::default() {
        return Err(StartRefusal::new(
            "callers are named and nobody is an administrator",
            "add an [admin] section with token_file or subjects",
        ));
    }
    if sections.len() > MAX_CALLERS {
        let what = format!("there are {} [[callers]] sections", sections.len());
        return Err(StartRefusal::new(what, format!("write at most {MAX_CALLERS}: one has many subjects")));
    }
    let mut names = BTreeSet::new();
    let mut known: BTreeSet<String> = admin.subjects.iter().cloned().collect();
    let mut files: BTreeSet<PathBuf> = admin.token_file.iter().cloned().collect();
    let mut callers = Vec::new();
    for section in sections {
        let plain = (1..=MAX_NAME).contains(&section.name.len())
            && section.name.bytes().all(|b| b.is_ascii_graphic());
        if !plain || !names.insert(section.name.clone()) {
            let what = format!("callers: `{}` is no name, or that of two", section.name.escape_default());
            return Err(StartRefusal::new(what, format!("write 1 to {MAX_NAME} printable characters, once")));
        }
        let caller = section.validate(base)?;
        let again = caller.who.subjects.iter().find(|subject| !known.insert((*subject).clone()));
        let file = caller.who.token_file.iter().find(|file| !files.insert((*file).clone()));
        let file = file.map(|file| file.display().to_string());
        if let Some(twice) = again.cloned().or(file) {
            let what = format!("callers: {twice} stands for two, one of them `{}`", caller.name);
            return Err(StartRefusal::new(what, "name each subject and each token once: it has one role"));
        }
        callers.push(caller);
    }
    Ok(callers)
}

impl CallerSection {
    fn validate(self, base: &Path) -> Result<CallerSettings, StartRefusal> {
        let refuse = |what: &str, remedy: &str| {
            Err(StartRefusal::new(format!("callers: `{}` {what}", self.name), remedy.to_owned()))
        };
        if self.token_file.is_none() && self.subjects.is_empty() {
            return refuse("cannot be recognised", "name its token_file or its subjects");
        }
        if let Some(agents) = &self.agents {
            let everything = match self.role {
                CallerRole::Read => Some("reads everything, and has agents"),
                // An order names a signer or a part of the log as a rule, whose agents nobody knows before.
                CallerRole::Stop => Some("stops whatever its orders name, and has agents"),
                CallerRole::Deploy | CallerRole::Execute => None,
            };
            if let Some(what) = everything {
                return refuse(what, "remove the line `agents`, or change the role");
            }
            if agents.is_empty() || agents.len() > MAX_PATTERNS {
                return refuse(
                    "may call no agent, or too many are named",
                    "name 1 to 256, or remove the line",
                );
            }
            if let Some(wrong) = agents.iter().find(|pattern| !is_pattern(pattern)) {
                let what = format!("has `{}`, which is no pattern", wrong.escape_default());
                return refuse(&what, "write an agent's id, or the beginning of ids and `*`");
            }
        }
        let mut who = AdminConfig { token_file: self.token_file, subjects: self.subjects };
        who.resolve_paths(base);
        Ok(CallerSettings { name: self.name, role: self.role, who, agents: self.agents })
    }
}

/// Whether it names agents: an id, or the beginning of ids and `*`.
pub(super) fn is_pattern(text: &str) -> bool {
    !text.is_empty() && !text.strip_suffix('*').unwrap_or(text).contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        callers: Vec<CallerSection>,
    }

    fn read(text: &str) -> Result<Vec<CallerSettings>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let admin = AdminConfig { token_file: Some("/etc/a".into()), subjects: vec!["CN=root".into()] };
        validate(file.callers, &admin, Path::new("/etc")).map_err(|refusal| refusal.to_string())
    }

    fn caller(more: &str) -> String {
        format!("[[callers]]\nname = 'n'\n{more}\n")
    }

    #[test]
    fn callers_are_read_with_paths_relative_to_the_file() {
        let text = caller("role = 'execute'\ntoken_file = 't'\nagents = ['billing.*', 'mail.send']");
        let read =
            read(&(text + "[[callers]]\nname = 'auditor'\nrole = 'read'\nsubjects = ['CN=eve']\n\
                           [[callers]]\nname = 'team'\nrole = 'deploy'\nsubjects = ['CN=ci']\nagents = ['a.*']\n\
                           [[callers]]\nname = 'guard'\nrole = 'stop'\nsubjects = ['CN=oncall']")).unwrap();
        assert_eq!(read[0].who.token_file.as_deref(), Some(Path::new("/etc/t")));
        assert_eq!(read[0].agents.as_ref().map(Vec::len), Some(2));
        assert_eq!((read[1].role, read[1].agents.as_ref()), (CallerRole::Read, None));
        assert_eq!((read[2].role, read[2].agents.as_ref().map(Vec::len)), (CallerRole::Deploy, Some(1)));
        assert_eq!(read[3].role, CallerRole::Stop);
    }

    #[test]
    fn what_is_ambiguous_or_useless_is_refused() {
        let known = "role = 'execute'\nsubjects = ['CN=a']";
        for (text, part) in [
            (caller("role = 'execute'"), "cannot be recognised"),
            (caller("role = 'administer'\ntoken_file = 't'"), "unknown variant"),
            (caller(&format!("{known}\nagent = ['a']")), "unknown field"),
            (caller(&format!("{known}\nagents = []")), "may call no agent"),
            (caller(&format!("{known}\nagents = ['a.*.b']")), "no pattern"),
            (caller(&format!("{known}\nagents = ['']")), "no pattern"),
            (caller("role = 'read'\ntoken_file = 't'\nagents = ['a']"), "reads everything"),
            (caller("role = 'stop'\ntoken_file = 't'\nagents = ['a']"), "stops whatever"),
            (caller("role = 'Stop'\ntoken_file = 't'"), "unknown variant"),
            (caller(known) + &caller("role = 'read'\nsubjects = ['CN=b']"), "that of two"),
            (caller("role = 'execute'\nsubjects = ['CN=root']"), "stands for two"),
            (caller("role = 'execute'\ntoken_file = 'a'"), "stands for two"),
            (format!("[[callers]]\nname = 'a b'\n{known}"), "is no name"),
            (format!("[[callers]]\nname = ''\n{known}"), "is no name"),
        ] {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
        let section = || CallerSection {
            name: "n".into(),
            role: CallerRole::Read,
            token_file: Some("t".into()),
            subjects: Vec::new(),
            agents: None,
        };
        let refused = validate(vec![section()], &AdminConfig::default(), Path::new("/etc")).unwrap_err();
        assert!(refused.to_string().contains("nobody is an administrator"), "{refused}");
        let many = (0..=MAX_CALLERS).map(|_| section()).collect();
        let admin = AdminConfig { subjects: vec!["CN=root".into()], ..AdminConfig::default() };
        assert!(validate(many, &admin, Path::new("/etc")).unwrap_err().to_string().contains("at most 64"));
    }
}
