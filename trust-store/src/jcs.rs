//! Canonical JSON (RFC 8785) for models of strings, booleans, integers, arrays and objects.
//!
//! Numbers are limited to the integers that every JSON reader represents exactly (RFC 7493 section 2.2:
//! -(2^53-1) to 2^53-1); other numbers and `null` are refused, because nothing of ours that is signed may hold them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::error::Error;
use crate::json::Value;

/// The largest integer, and with a minus sign the smallest, that canonical JSON carries.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// The canonical bytes of `value`.
///
/// # Errors
/// [`Error::Malformed`] for `null`, for a number that is not an integer, and for an integer beyond [`MAX_INTEGER`].
pub fn canonicalize(value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = String::new();
    write_value(value, &mut out)?;
    Ok(out.into_bytes())
}

fn write_value(value: &Value, out: &mut String) -> Result<(), Error> {
    match value {
        Value::Null => return Err(refused("null")),
        Value::Inexact => return Err(refused("a number that is not an integer")),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Integer(number) => {
            if !(-MAX_INTEGER..=MAX_INTEGER).contains(number) {
                return Err(refused(&format!("the integer {number}, beyond 2^53-1")));
            }
            out.push_str(&number.to_string());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            // RFC 8785 section 3.2.3 sorts by UTF-16 code units, which differs from UTF-8 order above U+FFFF.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(member, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// RFC 8785 section 3.2.2.2: the two-character escapes where JSON has one, `\u00xx` for the other control
/// characters, everything else as itself.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn refused(what: &str) -> Error {
    Error::malformed("canonical JSON", format!("{what} has no place in it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn canonical(text: &str) -> Result<String, Error> {
        let value = json::parse::<Value>("test", text.as_bytes(), 4096)?;
        Ok(String::from_utf8(canonicalize(&value)?).unwrap())
    }

    #[test]
    fn frozen_form() {
        assert_eq!(
            canonical(r#" { "b" : [ 1 , -2, true, false ], "a" : "\u00e9\u20ac\/\"\\\b\f\n\r\t\u001f\u007f" , "" : {} } "#)
                .unwrap(),
            "{\"\":{},\"a\":\"é€/\\\"\\\\\\b\\f\\n\\r\\t\\u001f\u{7f}\",\"b\":[1,-2,true,false]}"
        );
    }

    #[test]
    fn sorts_keys_by_utf16_code_units() {
        // RFC 8785 section 3.2.3: U+1F600 is D83D DE00 in UTF-16 and therefore before U+FB33.
        assert_eq!(
            canonical("{\"\u{fb33}\":1,\"\u{1f600}\":2,\"\u{20ac}\":3,\"\\r\":4,\"1\":5,\"\u{f6}\":6}")
                .unwrap(),
            "{\"\\r\":4,\"1\":5,\"\u{f6}\":6,\"\u{20ac}\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }

    #[test]
    fn refuses_what_cannot_be_signed() {
        for text in ["null", "1.5", "[1e2]", r#"{"a":9007199254740992}"#, "-9007199254740992"] {
            assert!(matches!(canonical(text), Err(Error::Malformed { .. })), "{text}");
        }
        assert_eq!(canonical("9007199254740991").unwrap(), "9007199254740991");
    }
}
