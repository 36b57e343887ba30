//! JSON text that is hashed, signed or compared by its bytes, and is made from a [`serde_json::Value`].
//!
//! In which order such a value keeps the members of an object is not ours to say: a cargo feature of `serde_json`, turned on by any
//! crate that is built beside ours, changes it from sorted to the order of insertion, and with it every digest. [`SortedJson`] is
//! written from a value in one order however the program was built, and what hashes or signs takes this type. Documents of a type
//! with named fields have the order of the declaration and need none of this; manifests have a canonical form ([`crate::jcs`]).

use alloc::string::{String, ToString as _};
use core::fmt;

use serde_json::Value;

/// The text of a JSON document: members of every object in the order of their names' bytes, names unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedJson(String);

impl SortedJson {
    /// A document of several lines, indented by two spaces, without a final line break: for files that people read. A document on
    /// one line without spaces comes from `From`.
    pub fn indented(mut document: Value) -> Self {
        document.sort_all_objects();
        // What `{:#}` writes for a value is what `serde_json::to_string_pretty` does.
        Self(alloc::format!("{document:#}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, by itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl From<Value> for SortedJson {
    fn from(mut document: Value) -> Self {
        document.sort_all_objects();
        Self(document.to_string())
    }
}

impl fmt::Display for SortedJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_sorted_at_every_depth_however_the_map_is_built() {
        let document = json!({
            "b": [{ "z": 1, "é": null, "Z": [{ "2": 2, "10": 1.5 }] }, true],
            "": "\u{8}\u{1f600}\"/",
            "a": { "second": 2, "first": { "y": 0, "x": -1 } },
        });
        // Frozen: records of every version were hashed from it.
        let line = "{\"\":\"\\b\u{1f600}\\\"/\",\"a\":{\"first\":{\"x\":-1,\"y\":0},\"second\":2},\
                    \"b\":[{\"Z\":[{\"10\":1.5,\"2\":2}],\"z\":1,\"é\":null},true]}";
        assert_eq!(SortedJson::from(document).as_str(), line);
    }

    #[test]
    fn lines_are_indented_by_two() {
        let document = json!({ "b": [], "a": [{ "d": {}, "c": 1 }] });
        let frozen = "{\n  \"a\": [\n    {\n      \"c\": 1,\n      \"d\": {}\n    }\n  ],\n  \"b\": []\n}";
        assert_eq!(SortedJson::indented(document).into_string(), frozen);
    }

    #[test]
    fn what_was_read_in_another_order_is_the_same_document() {
        let read = |text: &str| SortedJson::from(serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(read(r#"{"a":1,"b":{"c":2,"d":3}}"#), read(r#" {"b":{"d":3,"c":2},"a":1}"#));
    }
}
