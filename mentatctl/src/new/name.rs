//! The name of a new agent, which becomes the name of a package, of a module and of a part of an agent id.

/// Longest name, bytes.
const MAX_BYTES: usize = 40;

/// The name that the templates carry, and its form as an identifier.
const PLACEHOLDER: &str = "my-agent";
const PLACEHOLDER_IDENTIFIER: &str = "my_agent";

/// Words that a package, a crate or a program cannot be called in one of the languages, and what the templates use themselves.
const TAKEN: &[&str] = &[
    "abstract",
    "agent",
    "alloc",
    "as",
    "async",
    "auto",
    "await",
    "become",
    "box",
    "break",
    "build",
    "case",
    "char",
    "const",
    "continue",
    "core",
    "crate",
    "default",
    "do",
    "double",
    "dyn",
    "else",
    "enum",
    "export",
    "extern",
    "false",
    "final",
    "float",
    "fn",
    "for",
    "func",
    "gen",
    "go",
    "goto",
    "if",
    "impl",
    "import",
    "in",
    "int",
    "interface",
    "internal",
    "let",
    "long",
    "loop",
    "macro",
    "main",
    "map",
    "match",
    "mentat-sdk",
    "mod",
    "move",
    "mut",
    "override",
    "package",
    "priv",
    "pub",
    "range",
    "ref",
    "register",
    "return",
    "select",
    "self",
    "short",
    "sizeof",
    "static",
    "std",
    "struct",
    "super",
    "switch",
    "target",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "var",
    "vendor",
    "virtual",
    "void",
    "where",
    "while",
    "yield",
];

/// A name that every toolchain takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentName(String);

impl AgentName {
    /// Lower-case letters, digits and single hyphens, begun with a letter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err("it has 1 to 40 characters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err("it has a character of another kind");
        }
        if !text.starts_with(|first: char| first.is_ascii_lowercase())
            || text.ends_with('-')
            || text.contains("--")
        {
            return Err("it begins with a letter, and a hyphen stands between two others");
        }
        if TAKEN.contains(&text) {
            return Err("the word is taken in one of the languages");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A template's text with this name in the place of its own.
    pub fn put_into(&self, text: &str) -> String {
        text.replace(PLACEHOLDER, &self.0).replace(PLACEHOLDER_IDENTIFIER, &self.0.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_everywhere_is_none() {
        for good in ["a", "word-count", "x9", "my-agent", &"a".repeat(40)] {
            assert_eq!(AgentName::new(good).as_ref().map(AgentName::as_str), Ok(good));
        }
        let long = "a".repeat(41);
        for bad in [
            "",
            &long,
            "Word",
            "a_b",
            "9a",
            "-a",
            "a-",
            "a--b",
            "a b",
            "../a",
            "a.b",
            "ä",
            "fn",
            "go",
            "test",
            "mentat-sdk",
        ] {
            assert!(AgentName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_words_are_sorted_and_of_the_grammar() {
        assert!(TAKEN.is_sorted());
        assert!(TAKEN.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }

    #[test]
    fn the_name_stands_in_both_forms() -> Result<(), &'static str> {
        let name = AgentName::new("word-count")?;
        assert_eq!(name.put_into("my-agent.wasm of my_agent"), "word-count.wasm of word_count");
        Ok(())
    }
}
