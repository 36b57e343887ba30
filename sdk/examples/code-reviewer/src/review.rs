//! A unified diff, line by line.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most findings that are listed.
pub const MAX_FINDINGS: usize = 100;
/// Longest line without a finding, characters.
const MAX_LINE: usize = 120;

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file after the change.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
    /// Which rule.
    pub rule: &'static str,
}

/// What a change is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Files.
    pub files: u32,
    /// Lines.
    pub added: u32,
    /// Lines.
    pub removed: u32,
    /// In the order of the diff, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

/// Reads a diff and looks at every line that it adds.
///
/// # Errors
/// The first line that is none of a unified diff.
pub fn review(diff: &str) -> Result<Reviewed, String> {
    let mut reviewed = Reviewed::default();
    let mut file = "";
    // What is left of the hunk: lines of the old and the new file. A line that only looks like a head is one of these.
    let (mut old, mut new, mut line) = (0_u32, 0_u32, 0_u32);
    for (place, text) in diff.lines().enumerate() {
        if old == 0 && new == 0 {
            if let Some(name) = text.strip_prefix("+++ ") {
                file = name.strip_prefix("b/").unwrap_or(name);
                reviewed.files += 1;
            } else if text.starts_with("@@ ") {
                (old, line, new) =
                    hunk(text).ok_or_else(|| format!("line {} is no head of a hunk", place + 1))?;
            }
            continue;
        }
        match text.as_bytes().first() {
            Some(b'+') if new > 0 => {
                reviewed.added += 1;
                if let (Some(rule), true) =
                    (rule(file, text.get(1..).unwrap_or_default()), reviewed.findings.len() < MAX_FINDINGS)
                {
                    reviewed.findings.push(Finding { file: file.to_owned(), line, rule });
                }
                (new, line) = (new - 1, line.saturating_add(1));
            }
            Some(b'-') if old > 0 => {
                reviewed.removed += 1;
                old -= 1;
            }
            // An empty line of context loses its blank on the way through some mailers.
            Some(b' ') | None if old > 0 && new > 0 => {
                (old, new, line) = (old - 1, new - 1, line.saturating_add(1));
            }
            Some(b'\\') => {}
            _ => return Err(format!("line {} is none of a hunk", place + 1)),
        }
    }
    if old > 0 || new > 0 {
        return Err("the last hunk is cut off".to_owned());
    }
    if reviewed.files == 0 {
        return Err("it is no unified diff".to_owned());
    }
    Ok(reviewed)
}

/// `@@ -1,2 +3,4 @@`: lines of the old file, first line of the new one and its lines.
fn hunk(text: &str) -> Option<(u32, u32, u32)> {
    let mut words = text.split(' ').skip(1);
    let range = |word: &str| -> Option<(u32, u32)> {
        match word.split_once(',') {
            Some((first, count)) => Some((first.parse().ok()?, count.parse().ok()?)),
            None => Some((word.parse().ok()?, 1)),
        }
    };
    let (_, old) = range(words.next()?.strip_prefix('-')?)?;
    let (first, new) = range(words.next()?.strip_prefix('+')?)?;
    (words.next() == Some("@@")).then_some((old, first, new))
}

/// The rule that an added line breaks first.
fn rule(file: &str, line: &str) -> Option<&'static str> {
    let begins_key = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
    if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
        Some("conflict")
    } else if begins_key || has_access_key(line) {
        Some("secret")
    } else if file.ends_with(".rs") && line.contains(".unwrap()") {
        Some("unwrap")
    } else if line.contains("dbg!(") || line.contains("console.log(") {
        Some("print")
    } else if line.chars().count() > MAX_LINE {
        Some("long")
    } else {
        None
    }
}

/// `AKIA` and sixteen capitals or digits.
fn has_access_key(line: &str) -> bool {
    line.match_indices("AKIA").any(|(place, prefix)| {
        let rest = line.get(place + prefix.len()..).unwrap_or_default();
        rest.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).count() >= 16
    })
}
