//! What the agent does, without a host.

use std::collections::BTreeSet;

/// The lines of a text in the order of their bytes, each once, and how many those are.
pub fn sorted(text: &str) -> (usize, String) {
    let lines: BTreeSet<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len());
    for line in &lines {
        out.push_str(line);
        out.push('\n');
    }
    (lines.len(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_and_stand_once() {
        let expected = include_str!("../case.output.txt").to_owned();
        assert_eq!(sorted(include_str!("../case.input.txt")), (3, expected));
        assert_eq!(sorted(""), (0, String::new()));
        assert_eq!(sorted("b\r\na"), (2, "a\nb\n".to_owned()));
    }
}
