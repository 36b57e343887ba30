//! Putting the `attestation` block into a manifest's text without touching the rest of it.
//!
//! In a block mapping at the top of a document every line that starts in the first column with something else than a
//! comment or a list item starts a member. That is all this module knows of YAML; whether the result means what it
//! should is decided by reading it again.

use trust_store::json::Value;

/// The text with the member `attestation` replaced, or added at the end. `None` if the text is not a block mapping
/// that can be spliced.
pub(crate) fn with_attestation(text: &str, block: &Value) -> Option<String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut rendered = String::from("attestation:\n");
    render(block, 1, &mut rendered);
    let rendered = if newline == "\r\n" { rendered.replace('\n', newline) } else { rendered };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_end = |line: &str| line.starts_with("...");
    let start = lines.iter().position(|line| starts_attestation(line));
    let mut out = String::with_capacity(text.len() + rendered.len());
    let (before, after) = match start {
        Some(start) => {
            let rest = lines.get(start + 1..)?;
            let length =
                rest.iter().position(|line| starts_member(line) || is_end(line)).unwrap_or(rest.len());
            // Comments and blank lines in front of the next member belong to it.
            let own = rest
                .get(..length)?
                .iter()
                .rposition(|line| !is_blank_or_comment(line))
                .map_or(0, |last| last + 1);
            (lines.get(..start)?, rest.get(own..)?)
        }
        None => {
            let end = lines.iter().position(|line| is_end(line)).unwrap_or(lines.len());
            (lines.get(..end)?, lines.get(end..)?)
        }
    };
    if !before.iter().chain(after).any(|line| starts_member(line)) {
        return None;
    }
    out.extend(before.iter().copied());
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(newline);
    }
    out.push_str(&rendered);
    out.extend(after.iter().copied());
    Some(out)
}

fn starts_attestation(line: &str) -> bool {
    ["attestation", "\"attestation\"", "'attestation'"]
        .iter()
        .any(|key| line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(' ').starts_with(':')))
}

fn starts_member(line: &str) -> bool {
    !matches!(line.chars().next(), None | Some(' ' | '\t' | '#' | '-' | '\n' | '\r' | '%' | '.' | '{' | '['))
}

fn is_blank_or_comment(line: &str) -> bool {
    let rest = line.trim();
    rest.is_empty() || line.starts_with('#')
}

/// Block style with two spaces per level; texts of several lines as literals, all others quoted as in JSON, which YAML
/// reads the same.
fn render(value: &Value, level: usize, out: &mut String) {
    let indent = "  ".repeat(level);
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                out.push_str(&indent);
                out.push_str(key);
                out.push(':');
                render_member(member, level, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&indent);
                out.push('-');
                render_member(item, level, out);
            }
        }
        _ => {}
    }
}

fn render_member(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            render(value, level + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            render(value, level + 1, out);
        }
        Value::String(text) if is_literal(text) => {
            out.push_str(" |\n");
            for line in text.lines() {
                out.push_str(&"  ".repeat(level + 1));
                out.push_str(line);
                out.push('\n');
            }
        }
        scalar => {
            out.push(' ');
            out.push_str(&serde_json::to_string(scalar).unwrap_or_default());
            out.push('\n');
        }
    }
}

/// PEM: printable lines, each ended, none starting with a space, none empty.
fn is_literal(text: &str) -> bool {
    text.ends_with('\n')
        && text.lines().count() > 1
        && text.lines().all(|line| {
            !line.is_empty() && line.bytes().all(|b| (0x20..0x7f).contains(&b)) && !line.starts_with(' ')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn block() -> Value {
        yaml::parse("t", b"version: 2\nbundle: m.sigstore.json\nlist: [\"l1\\nl2\\n\", 'a: b']\n", 999)
            .unwrap()
    }

    const RENDERED: &str = "attestation:\n  bundle: \"m.sigstore.json\"\n  list:\n    - |\n      l1\n      l2\n    - \"a: b\"\n  version: 2\n";

    #[test]
    fn appends_or_replaces_the_block_only() {
        for (before, after) in [
            ("id: a\n", format!("id: a\n{RENDERED}")),
            ("id: a", format!("id: a\n{RENDERED}")),
            ("id: a\nattestation:\n  version: 1\n", format!("id: a\n{RENDERED}")),
            ("attestation: {version: 1}\n\n# about id\nid: a\n", format!("{RENDERED}\n# about id\nid: a\n")),
            ("attestation:\n  x: 1\n# inside\n  y: 2\n\nid: a # c\n", format!("{RENDERED}\nid: a # c\n")),
            ("---\nid: a\nlist:\n- 1\n...\n", format!("---\nid: a\nlist:\n- 1\n{RENDERED}...\n")),
            ("\"attestation\" : 1\nid: a\n", format!("{RENDERED}id: a\n")),
            ("id: a\nattestation_note: x\n", format!("id: a\nattestation_note: x\n{RENDERED}")),
        ] {
            assert_eq!(with_attestation(before, &block()).as_deref(), Some(after.as_str()), "{before:?}");
        }
        let windows = with_attestation("id: a\r\n", &block()).unwrap();
        assert_eq!(windows, format!("id: a\n{RENDERED}").replace('\n', "\r\n"));
    }

    #[test]
    fn what_is_rendered_reads_back_the_same() {
        let text = with_attestation("id: a\n", &block()).unwrap();
        let read = yaml::parse("t", text.as_bytes(), 9999).unwrap();
        assert_eq!(read.member("attestation"), Some(&block()));
    }

    #[test]
    fn a_flow_mapping_cannot_be_spliced() {
        assert_eq!(with_attestation("{id: a}\n", &block()), None);
        assert_eq!(with_attestation("", &block()), None);
    }
}
