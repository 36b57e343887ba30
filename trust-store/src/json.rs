//! Strict JSON: bounded before it is parsed, no duplicate keys, no trailing data, integers only.
//!
//! Typed documents are read with [`parse`] into serde types that deny unknown fields; a document whose shape is free
//! (a manifest before it is typed, a foreign predicate) is read into [`Value`], whose reader refuses duplicate keys at
//! every depth. Nesting is bounded by the parser to 128 levels.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Members of a JSON object. Order of insertion is not kept: nothing that is signed depends on it.
pub type Object = BTreeMap<String, Value>;

/// The JSON model of this crate: everything that canonical JSON (RFC 8785) can carry here, without floating point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`. Read, but never part of a manifest.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// A number with a fraction, an exponent, or more than 64 bits. Its value is not kept: nothing may depend on it,
    /// and canonical JSON refuses it.
    Inexact,
    /// Text.
    String(String),
    /// An ordered list.
    Array(Vec<Value>),
    /// An object; keys are unique.
    Object(Object),
}

impl Value {
    /// The member `key` of an object; `None` for a missing member and for anything that is not an object.
    pub fn member(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The JSON type, in the words of RFC 8259, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Integer(_) => "integer",
            Self::Inexact => "non-integer number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Reads one JSON document of at most `limit` bytes into `T`.
///
/// # Errors
/// [`Error::TooLarge`] before anything is parsed; [`Error::Malformed`] with line and column for bad syntax, trailing
/// data, duplicate keys, and unknown or missing fields of `T`.
pub fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, Error> {
    if bytes.len() > limit {
        return Err(Error::TooLarge { what, limit });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::malformed(what, error.to_string()))
}

/// Writes a document as compact JSON.
///
/// # Errors
/// [`Error::Malformed`] if a type of ours refuses to be written; none of this crate's types does.
pub fn write<T: Serialize>(what: &'static str, document: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|error| Error::malformed(what, error.to_string()))
}

/// Writes a document as indented JSON with a final line break, for files that people read.
///
/// # Errors
/// As [`write()`].
pub fn write_pretty<T: Serialize>(what: &'static str, document: &T) -> Result<Vec<u8>, Error> {
    let mut bytes =
        serde_json::to_vec_pretty(document).map_err(|error| Error::malformed(what, error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Decodes base64 as RFC 4648 section 4 defines it: standard alphabet, padded, no white space, zero padding bits.
///
/// # Errors
/// [`Error::Malformed`] naming `what`.
pub fn base64_decode(what: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text).map_err(|error| Error::malformed(what, format!("base64: {error}")))
}

/// Encodes as padded standard base64.
pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A byte string carried as padded standard base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64_encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("padded standard base64")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                STANDARD.decode(text).map(Bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A 64-bit integer of protobuf's JSON form: written as a string, read from a string or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Int64(pub i64);

impl Serialize for Int64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Int64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit integer as decimal text or number")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Int64, E> {
                Ok(Int64(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Int64, E> {
                i64::try_from(value).map(Int64).map_err(|_| E::custom("integer over 2^63-1"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int64, E> {
                let value: i64 = text.parse().map_err(E::custom)?;
                // One spelling per value: no plus sign, no leading zeros.
                if value.to_string() == text {
                    Ok(Int64(value))
                } else {
                    Err(E::custom("not a plain decimal"))
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Reads an absent or `null` list or message as its empty default, as protobuf's JSON form demands. For use with
/// `#[serde(default, deserialize_with = "json::null_as_default")]`.
///
/// # Errors
/// Those of `T`.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Inexact => {
                Err(serde::ser::Error::custom("a non-integer number was read; its value is not kept"))
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<Self>::default())
    }
}

/// Reads a [`Value`] with unique text keys. `N` reads what is nested in it, keys too: `Value` itself, or a type of another
/// format's reader that refuses what that format has besides (a tag of YAML).
#[derive(Debug)]
pub struct ValueVisitor<N>(PhantomData<N>);

impl<N> Default for ValueVisitor<N> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, N: Deserialize<'de> + Into<Value>> Visitor<'de> for ValueVisitor<N> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Inexact, Value::Integer))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Inexact)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<N>()? {
            items.push(item.into());
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Object::new();
        while let Some(key) = map.next_key::<N>()? {
            let key = match key.into() {
                Value::String(key) => key,
                other => {
                    return Err(de::Error::custom(format!("a key is a text, not a {}", other.type_name())));
                }
            };
            if members.contains_key(&key) {
                return Err(de::Error::custom(format!("duplicate key `{key}`")));
            }
            let value = map.next_value::<N>()?;
            members.insert(key, value.into());
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, Error> {
        parse("test", text.as_bytes(), 1024)
    }

    #[test]
    fn refuses_duplicate_keys_at_every_depth() {
        assert!(value(r#"{"a":1,"b":2}"#).is_ok());
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#] {
            assert!(value(text).unwrap_err().to_string().contains("duplicate key `a`"), "{text}");
        }
    }

    #[test]
    fn refuses_trailing_data_and_over_long_input() {
        assert!(matches!(value("1 2"), Err(Error::Malformed { .. })));
        let long = alloc::vec![b' '; 1025];
        assert_eq!(parse::<Value>("test", &long, 1024), Err(Error::TooLarge { what: "test", limit: 1024 }));
    }

    #[test]
    fn keeps_no_value_of_a_number_that_is_not_an_integer() {
        for text in ["1.0", "1e3", "18446744073709551615", "-0.5"] {
            assert_eq!(value(text).unwrap(), Value::Inexact, "{text}");
        }
        assert_eq!(value("-9223372036854775808").unwrap(), Value::Integer(i64::MIN));
    }

    #[test]
    fn base64_is_padded_standard_with_zero_padding_bits() {
        assert_eq!(base64_decode("x", "AQI=").unwrap(), [1, 2]);
        for text in ["AQI", "AQJ=", "AQ I=", "_-8=", "AQI=\n"] {
            assert!(base64_decode("x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn int64_has_one_spelling() {
        assert_eq!(parse::<Int64>("x", br#""12""#, 9).unwrap(), Int64(12));
        assert_eq!(parse::<Int64>("x", b"12", 9).unwrap(), Int64(12));
        for text in [r#""+1""#, r#""01""#, r#"" 1""#, r#""""#, "1.0"] {
            assert!(parse::<Int64>("x", text.as_bytes(), 9).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep: String = "[".repeat(500);
        assert!(matches!(value(&deep), Err(Error::Malformed { .. })));
    }
}
