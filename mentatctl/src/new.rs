//! `new`: the start of an agent, with the SDK's sources beside it.

mod name;
mod template;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome, file_failure};
use crate::home::{Secrecy, make_folder, write_file};
use crate::output::{Output, Tone, shown};
use name::AgentName;
use template::Template;

/// `new`.
#[derive(Debug, Args)]
pub struct New {
    /// Name of the agent: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// In which language
    #[arg(long, value_enum, value_name = "LANGUAGE", required_unless_present = "list")]
    language: Option<Language>,
    /// Folder to make; by default NAME in this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// List the languages and what each needs
    #[arg(long, conflicts_with_all = ["name", "language", "dir"])]
    list: bool,
}

/// A language with an SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust
    Rust,
    /// AssemblyScript
    #[value(name = "assemblyscript")]
    AssemblyScript,
    /// Go, built by TinyGo or by Go
    Go,
    /// C
    C,
}

/// Runs `new`.
///
/// # Errors
/// Exit code 2 when the name is none or the folder exists, 1 when it cannot be written.
pub fn run(new: &New, out: &Output) -> Outcome {
    match (&new.name, new.language) {
        (Some(name), Some(language)) if !new.list => make(name, language, new.dir.as_deref(), out),
        _ => Ok(list(out)),
    }
}

fn list(out: &Output) -> Exit {
    for language in Language::value_variants() {
        let template = Template::of(*language);
        out.line(format!("{:<16}{}", out.paint(Tone::Strong, template.name), template.needs));
    }
    out.value(|| {
        let languages: Vec<_> = Language::value_variants()
            .iter()
            .map(|language| Template::of(*language))
            .map(|template| json!({ "language": template.name, "needs": template.needs }))
            .collect();
        json!({ "ok": true, "languages": languages })
    });
    Exit::Ok
}

fn make(name: &str, language: Language, dir: Option<&Path>, out: &Output) -> Outcome {
    let name = AgentName::parse(name)?;
    let template = Template::of(language);
    let folder = dir.unwrap_or(Path::new(name.as_str()));
    // Never into a folder that is there: the first step fails where anything has this name.
    std::fs::create_dir(folder).map_err(|error| {
        let failure = file_failure(Exit::Usage, format!("cannot make {}", folder.display()), &error);
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return failure.hint(
                "nothing was written; choose another name, or give --dir a folder that does not exist",
            );
        }
        failure
    })?;
    if let Err(failure) = write(&template, &name, folder) {
        // It was made a moment ago, and holds nothing but what is written here.
        let _ = std::fs::remove_dir_all(folder);
        return Err(failure);
    }
    let next = next(&template, folder);
    out.line(format!(
        "{} {}, an agent in {}",
        out.paint(Tone::Good, "made"),
        folder.display(),
        template.title
    ));
    let width = next.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    for (command, what) in &next {
        out.line(format!("  {command:<width$}  {}", out.paint(Tone::Faint, format!("# {what}"))));
    }
    out.value(|| {
        json!({
            "ok": true,
            "name": name.as_str(),
            "language": template.name,
            "folder": shown(folder),
            "files": template.files().map(|file| name.put_into(file.path)).collect::<Vec<_>>(),
            "next": next.iter().map(|(command, _)| command).collect::<Vec<_>>(),
        })
    });
    Ok(Exit::Ok)
}

fn write(template: &Template, name: &AgentName, folder: &Path) -> Outcome<()> {
    for file in template.files() {
        let path = folder.join(name.put_into(file.path));
        let text = if file.is_sdk() { file.text.to_owned() } else { name.put_into(file.text) };
        make_folder(path.parent().unwrap_or(folder), Secrecy::Public)?;
        write_file(&path, text.as_bytes(), Secrecy::Public)?;
    }
    Ok(())
}

/// The commands from here to the first answer, and what each does.
fn next(template: &Template, folder: &Path) -> Vec<(String, &'static str)> {
    let folder = quoted(folder);
    vec![
        (format!("make -C {folder}"), "builds the module"),
        (format!("make -C {folder} test"), "runs it on a host that is no executor"),
        (format!("mentatctl sign {folder}"), "signs it and records the signature in the log"),
        (format!("mentatctl run {folder} --input {folder}/{}", template.input), "hands it to the executor"),
    ]
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

impl AgentName {
    /// Refuses a name that not every toolchain takes.
    fn parse(text: &str) -> Outcome<Self> {
        Self::new(text).map_err(|wrong| {
            Failure::usage(format!("`{text}` cannot be the name of an agent: {wrong}"))
                .hint("use lower-case letters, digits and single hyphens, such as `word-count`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("a/b-c.d")), "a/b-c.d");
        assert_eq!(quoted(Path::new("a b'c")), r"'a b'\''c'");
    }
}
