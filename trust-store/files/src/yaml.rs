//! YAML as a strict model: one document of YAML 1.2 core types, and nothing with two readings.
//!
//! Refused: anchors and aliases, tags, merge keys, duplicate keys, several documents, YAML 1.1 booleans as booleans
//! (`no` is a text), underscored numbers as numbers. A number that is not an integer is read as a value that nothing
//! accepts (a version such as `1.2` must be quoted, or better: have three parts).

use serde::de::{self, Deserialize, Deserializer};
use serde_saphyr::Tagged;
use serde_saphyr::budget::Budget;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, Options};
use trust_store::error::Error;
use trust_store::json::{Value, ValueVisitor};

/// Deepest nesting that is read. A manifest has five levels.
const MAX_DEPTH: usize = 32;
/// Most parser events. The largest manifest with its attestation block has some thousand.
const MAX_EVENTS: usize = 100_000;

/// Reads one YAML document of at most `limit` bytes.
///
/// # Errors
/// `too_large` before anything is parsed, else `malformed` with line and column.
pub fn parse(what: &'static str, bytes: &[u8], limit: usize) -> Result<Value, Error> {
    if bytes.len() > limit {
        return Err(Error::TooLarge { what, limit });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::malformed(what, error.to_string()))?;
    let node: Node = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| Error::malformed(what, error.to_string()))?;
    Ok(node.0)
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_aliases = 0;
    budget.max_anchors = 0;
    budget.max_depth = MAX_DEPTH;
    budget.max_documents = 1;
    budget.max_events = MAX_EVENTS;
    budget.max_nodes = MAX_EVENTS;
    budget.flow_nesting_limit = MAX_DEPTH;
    serde_saphyr::options! {
        budget: Some(budget),
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// A value whose node has no tag.
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Tagged(Untagged(value), tag) = Tagged::<Untagged>::deserialize(deserializer)?;
        match tag {
            None => Ok(Self(value)),
            Some(tag) => Err(de::Error::custom(format!("the tag `{tag}` has no place here"))),
        }
    }
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        node.0
    }
}

struct Untagged(Value);

impl<'de> Deserialize<'de> for Untagged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<Node>::default()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust_store::jcs;

    fn canonical(text: &str) -> Result<String, Error> {
        let value = parse("test", text.as_bytes(), 4096)?;
        Ok(String::from_utf8(jcs::canonicalize(&value)?).unwrap())
    }

    #[test]
    fn reads_core_types_only() {
        assert_eq!(
            canonical(
                "a: 1\nb: true\nc: no\nd: [x, 'y', \"z\\n\"]\ne: |\n  l1\n  l2\nf: 1_000\ng: -3\nh: 1.2.0\n"
            )
            .unwrap(),
            r#"{"a":1,"b":true,"c":"no","d":["x","y","z\n"],"e":"l1\nl2\n","f":"1_000","g":-3,"h":"1.2.0"}"#
        );
        assert_eq!(canonical("--- # comment\na: {b: {}}\n").unwrap(), r#"{"a":{"b":{}}}"#);
    }

    #[test]
    fn refuses_everything_with_two_readings() {
        for text in [
            "a: 1\na: 2\n",
            "a: &x 1\n",
            "a: &x 1\nb: *x\n",
            "<<: {a: 1}\nb: 2\n",
            "a: !!str 1\n",
            "a: !custom 1\n",
            "!!map {a: 1}\n",
            "!!str a: 1\n",
            "a: !!binary aGk=\n",
            "a: 1\n---\nb: 2\n",
            "1: a\n",
            "true: a\n",
            "? [a]\n: b\n",
            "a: 1.5\n",
            "a: .inf\n",
            "a:\n",
            "a: null\n",
            "a: ~\n",
            "a: [\n",
            "a: 18446744073709551615\n",
        ] {
            assert!(canonical(text).is_err(), "{text:?}: {:?}", canonical(text));
        }
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        assert!(canonical(&format!("{}1{}", "[".repeat(40), "]".repeat(40))).is_err());
        assert!(canonical(&"- ".repeat(40)).is_err());
        assert!(matches!(parse("test", &[b' '; 11], 10), Err(Error::TooLarge { .. })));
        assert!(parse("test", b"a: \xff", 10).is_err());
    }
}
