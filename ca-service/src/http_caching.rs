//! What HTTP caches are told of signed status (RFC 9919 §5): made once for each answer and list, not for each request.

use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

/// The headers of something that is signed with two times, and what its conditional requests are judged by.
#[derive(Debug, Clone)]
pub(crate) struct CachingHeaders {
    this_update: i64,
    etag: HeaderValue,
    last_modified: HeaderValue,
    expires: HeaderValue,
}

impl CachingHeaders {
    /// Of bytes with this SHA-256, which is their strong tag, and these times, seconds since 1970.
    pub(crate) fn new(sha256: &[u8; 32], this_update: i64, next_update: i64) -> Self {
        Self {
            this_update,
            etag: value(format!("\"{}\"", hex::encode(sha256))),
            last_modified: value(http_date(this_update)),
            expires: value(http_date(next_update)),
        }
    }

    /// Whether the client has this very object (RFC 9110 §13.2.2: the tag decides where there is one, else the date).
    pub(crate) fn is_known(&self, request: &HeaderMap) -> bool {
        if request.contains_key(IF_NONE_MATCH) {
            return request
                .get_all(IF_NONE_MATCH)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .map(str::trim)
                .any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == self.etag.as_bytes());
        }
        let since = request.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
        since.and_then(from_http_date).is_some_and(|since| since >= self.this_update)
    }

    /// Puts them into an answer that caches may keep for so many seconds.
    pub(crate) fn put_into(&self, headers: &mut HeaderMap, max_age: i64) {
        headers.insert(CACHE_CONTROL, cache_control(max_age));
        headers.insert(ETAG, self.etag.clone());
        headers.insert(LAST_MODIFIED, self.last_modified.clone());
        headers.insert(EXPIRES, self.expires.clone());
    }
}

/// Cache-Control; ten seconds are what nearly every OCSP answer has left.
fn cache_control(max_age: i64) -> HeaderValue {
    match max_age {
        10 => HeaderValue::from_static("public, no-transform, must-revalidate, max-age=10"),
        other => value(format!("public, no-transform, must-revalidate, max-age={other}")),
    }
}

/// Digits, letters and punctuation of ASCII, which a header takes.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The seconds of an IMF-fixdate; none for the obsolete forms, which only cost a full answer.
fn from_http_date(text: &str) -> Option<i64> {
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = u8::try_from(MONTHS.iter().position(|name| *name == month)? + 1).ok()?;
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let number = |text: &str| text.parse::<u8>().ok();
    let date = der::DateTime::new(
        year.parse().ok()?,
        month,
        number(day)?,
        number(hour)?,
        number(minute)?,
        number(second)?,
    );
    i64::try_from(date.ok()?.unix_duration().as_secs()).ok()
}

/// IMF-fixdate of RFC 9110 §5.6.7.
fn http_date(seconds: i64) -> String {
    let text = ca_pki::UnixTime(seconds).to_rfc3339();
    let (year, month, day, time) = match (text.get(0..4), text.get(5..7), text.get(8..10), text.get(11..19)) {
        (Some(year), Some(month), Some(day), Some(time)) => (year, month, day, time),
        _ => return String::new(),
    };
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)).copied());
    let weekday =
        usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).ok().and_then(|day| DAYS.get(day).copied());
    format!("{}, {day} {} {year} {time} GMT", weekday.unwrap_or_default(), month.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_date_is_read_back_and_anything_else_is_none() {
        for seconds in [0, 784_111_777, 1_794_000_000] {
            assert_eq!(from_http_date(&http_date(seconds)), Some(seconds));
        }
        for text in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", "a b c d e GMT"] {
            assert_eq!(from_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn the_tag_decides_and_where_there_is_none_the_date_does() {
        let headers = CachingHeaders::new(&[0xab; 32], 784_111_777, 800_000_000);
        let tag = format!("\"{}\"", "ab".repeat(32));
        let asked = |name: http::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let same = http_date(784_111_777);
        assert!(headers.is_known(&asked(IF_MODIFIED_SINCE, &same)));
        assert!(headers.is_known(&asked(IF_MODIFIED_SINCE, &http_date(784_111_778))));
        assert!(!headers.is_known(&asked(IF_MODIFIED_SINCE, &http_date(784_111_776))));
        assert!(!headers.is_known(&asked(IF_MODIFIED_SINCE, "yesterday")));
        let mut both = asked(IF_NONE_MATCH, "\"y\"");
        both.insert(IF_MODIFIED_SINCE, same.parse().unwrap());
        assert!(!headers.is_known(&both));
        assert!(headers.is_known(&asked(IF_NONE_MATCH, &format!("\"y\", W/{tag}"))));
        assert!(headers.is_known(&asked(IF_NONE_MATCH, "\"y\", *")));
    }

    #[test]
    fn what_is_told_is_made_of_the_digest_and_the_times() {
        let headers = CachingHeaders::new(&[0xab; 32], 0, 784_111_777);
        for (max_age, told) in [(10, "max-age=10"), (0, "max-age=0"), (300, "max-age=300")] {
            let mut answer = HeaderMap::new();
            headers.put_into(&mut answer, max_age);
            assert_eq!(answer[CACHE_CONTROL], format!("public, no-transform, must-revalidate, {told}"));
            assert_eq!(answer[ETAG], format!("\"{}\"", "ab".repeat(32)));
            assert_eq!(answer[LAST_MODIFIED], "Thu, 01 Jan 1970 00:00:00 GMT");
            assert_eq!(answer[EXPIRES], "Sun, 06 Nov 1994 08:49:37 GMT");
        }
    }
}
