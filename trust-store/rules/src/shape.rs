//! How long and how deep a rule may be, looked at before anything parses it.
//!
//! Parser, validator and evaluator go down into an expression by recursion, one step for a token at the most. Nothing here
//! understands the language beyond strings, comments, words and brackets.

use crate::RulesError;

/// Most words, strings and signs of one rule, comments apart.
pub const MAX_TOKENS: usize = 1024;

/// Deepest nesting of brackets, of all three kinds together.
pub const MAX_DEPTH: usize = 24;

/// Refuses text with a rule that is longer or deeper than is read.
pub(crate) fn check(text: &str) -> Result<(), RulesError> {
    let (mut depth, mut tokens) = (0_usize, 0_usize);
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            byte if byte.is_ascii_whitespace() => continue,
            b'/' if rest.peek() == Some(&b'/') => {
                while rest.next_if(|inner| !matches!(inner, b'\n' | b'\r')).is_some() {}
                continue;
            }
            b'"' => skip_string(&mut rest),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            byte if is_word(byte) => while rest.next_if(|inner| is_word(*inner)).is_some() {},
            _ => {}
        }
        tokens += 1;
        if depth > MAX_DEPTH {
            return Err(RulesError::TooLarge { what: "brackets within brackets", limit: MAX_DEPTH });
        }
        if tokens > MAX_TOKENS {
            return Err(RulesError::TooLarge { what: "words and signs in one rule", limit: MAX_TOKENS });
        }
        if byte == b';' {
            tokens = 0;
        }
    }
    Ok(())
}

/// Goes behind the closing quotation mark.
fn skip_string(rest: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(rest.next()),
            _ => {}
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_many(text: &str) -> Option<&'static str> {
        match check(text) {
            Ok(()) => None,
            Err(RulesError::TooLarge { what, .. }) => Some(what),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn brackets_are_counted_where_they_are_brackets() {
        let deep = "(".repeat(MAX_DEPTH);
        assert_eq!(too_many(&deep), None);
        assert_eq!(too_many(&format!("{deep}[")), Some("brackets within brackets"));
        assert_eq!(too_many(&format!("{deep}\"({{[\\\"(\" // ((( \n )(")), None);
        // A mark that never closes takes the rest with it, as it does for the parser.
        assert_eq!(too_many(&format!("{deep}\"{deep}")), None);
    }

    #[test]
    fn each_rule_has_its_own_words() {
        let rule = "a ".repeat(MAX_TOKENS - 1);
        assert_eq!(too_many(&format!("{rule};{rule};")), None);
        assert_eq!(too_many(&format!("{rule}a;")), Some("words and signs in one rule"));
        assert_eq!(too_many(&"a".repeat(MAX_TOKENS + 1)), None);
        assert_eq!(too_many(&"!".repeat(MAX_TOKENS + 1)), Some("words and signs in one rule"));
        // A mark that ends rules does so only outside of strings.
        assert_eq!(too_many(&format!("{rule}\";\";")), Some("words and signs in one rule"));
    }
}
