//! Validity windows of trust material, as Sigstore's trust files write them.

use alloc::string::String;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::UnixTime;

/// A time span; both ends belong to it. In a file it is `validFor` with `start` and, where the material was replaced,
/// `end`, in RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// First second; `None` means always in the past, which logs do not allow.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339")]
    pub start: Option<UnixTime>,
    /// Last second; `None` means still in use.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339")]
    pub end: Option<UnixTime>,
}

impl Validity {
    /// Valid from `start` on, without an end.
    pub fn since(start: UnixTime) -> Self {
        Self { start: Some(start), end: None }
    }

    /// Whether `time` is inside, both ends included.
    pub fn contains(&self, time: UnixTime) -> bool {
        self.start.is_none_or(|start| start <= time) && self.end.is_none_or(|end| time <= end)
    }
}

mod rfc3339 {
    use super::{D, Deserialize, Deserializer, S, Serializer, String, UnixTime};

    pub(super) fn serialize<T: Serializer>(time: &Option<UnixTime>, serializer: T) -> S<T> {
        match time {
            Some(time) => serializer.serialize_str(&time.to_rfc3339()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: Deserializer<'de>>(deserializer: T) -> D<'de, T> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse::<T>(&text)).transpose()
    }
}

type S<T> = Result<<T as Serializer>::Ok, <T as Serializer>::Error>;
type D<'de, T> = Result<Option<UnixTime>, <T as Deserializer<'de>>::Error>;

fn parse<'de, T: Deserializer<'de>>(text: &str) -> Result<UnixTime, T::Error> {
    UnixTime::from_rfc3339(text).ok_or_else(|| T::Error::custom("not an RFC 3339 time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn both_ends_belong_to_the_span() {
        let validity = Validity { start: Some(UnixTime(10)), end: Some(UnixTime(20)) };
        for (time, expected) in [(9, false), (10, true), (20, true), (21, false)] {
            assert_eq!(validity.contains(UnixTime(time)), expected, "{time}");
        }
        assert!(Validity::since(UnixTime(10)).contains(UnixTime(i64::MAX)));
    }

    #[test]
    fn is_written_in_rfc3339() {
        let text = json::write("x", &Validity::since(UnixTime(0))).unwrap();
        assert_eq!(text, br#"{"start":"1970-01-01T00:00:00Z"}"#);
        assert_eq!(json::parse::<Validity>("x", &text, 99).unwrap(), Validity::since(UnixTime(0)));
        assert!(json::parse::<Validity>("x", br#"{"start":"yesterday"}"#, 99).is_err());
        assert!(json::parse::<Validity>("x", br#"{"begin":"1970-01-01T00:00:00Z"}"#, 99).is_err());
    }
}
