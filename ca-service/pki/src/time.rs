//! Times of X.509: seconds since 1970 in, UTCTime through 2049 and GeneralizedTime after (RFC 5280 §4.1.2.5) out.

use alloc::vec::Vec;
use core::time::Duration;

use der::DateTime;
use der::asn1::{GeneralizedTime, UtcTime};
use x509_cert::time::Time;

pub use trust_store::UnixTime;

use crate::encoding;
use crate::error::Error;

/// The X.509 `Time` of an instant: UTCTime through 2049, GeneralizedTime from 2050.
///
/// # Errors
/// [`Error::UnrepresentableTime`] before 1970 or after 9999.
pub fn x509_time(at: UnixTime) -> Result<Time, Error> {
    let date_time = date_time(at)?;
    if date_time.year() < 2050 {
        UtcTime::from_date_time(date_time).map(Time::UtcTime).map_err(|_| Error::UnrepresentableTime(at.0))
    } else {
        Ok(Time::GeneralTime(GeneralizedTime::from_date_time(date_time)))
    }
}

/// Seconds since 1970 of an X.509 `Time`.
#[must_use]
pub fn unix_time(time: Time) -> UnixTime {
    // A der DateTime ends in 9999: its seconds fit an i64 by far.
    UnixTime(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn date_time(at: UnixTime) -> Result<DateTime, Error> {
    let seconds = u64::try_from(at.0).map_err(|_| Error::UnrepresentableTime(at.0))?;
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(|_| Error::UnrepresentableTime(at.0))
}

/// GeneralizedTime `YYYYMMDDHHMMSSZ`, complete with tag and length.
pub(crate) fn generalized(at: UnixTime) -> Result<Vec<u8>, Error> {
    let text = digits(&date_time(at)?, 4)?;
    Ok(encoding::tlv(encoding::GENERALIZED_TIME, &[&text]))
}

/// `Time` CHOICE as bytes, complete with tag and length.
pub(crate) fn choice(at: UnixTime) -> Result<Vec<u8>, Error> {
    let value = date_time(at)?;
    if value.year() < 2050 {
        Ok(encoding::tlv(encoding::UTC_TIME, &[&digits(&value, 2)?]))
    } else {
        Ok(encoding::tlv(encoding::GENERALIZED_TIME, &[&digits(&value, 4)?]))
    }
}

/// The first second of 2050.
const GENERALIZED_FROM: i64 = 2_524_608_000;

/// How many octets [`choice`] has for an instant that can be represented.
pub(crate) fn choice_length(at: UnixTime) -> usize {
    if at.0 < GENERALIZED_FROM { 15 } else { 17 }
}

fn digits(value: &DateTime, year_digits: usize) -> Result<Vec<u8>, Error> {
    let year = value.year();
    let mut text = Vec::with_capacity(15);
    if year_digits == 4 {
        push_two(&mut text, year / 100);
    }
    push_two(&mut text, year % 100);
    for part in [value.month(), value.day(), value.hour(), value.minutes(), value.seconds()] {
        push_two(&mut text, u16::from(part));
    }
    text.push(b'Z');
    Ok(text)
}

fn push_two(text: &mut Vec<u8>, value: u16) {
    for digit in [value / 10 % 10, value % 10] {
        // A single decimal digit always fits.
        text.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::Encode;

    #[test]
    fn utc_time_ends_with_2049() {
        let last = UnixTime(2_524_607_999); // 2049-12-31T23:59:59Z
        assert!(matches!(x509_time(last).unwrap(), Time::UtcTime(_)));
        assert!(matches!(x509_time(UnixTime(last.0 + 1)).unwrap(), Time::GeneralTime(_)));
        assert_eq!(choice(last).unwrap(), b"\x17\x0d491231235959Z");
        for at in [UnixTime(0), last, UnixTime(last.0 + 1)] {
            assert_eq!(choice(at).unwrap().len(), choice_length(at));
        }
        assert_eq!(choice(UnixTime(last.0 + 1)).unwrap(), b"\x18\x0f20500101000000Z");
    }

    #[test]
    fn own_and_library_encodings_agree() {
        for at in [0, 951_782_400, 1_763_740_800, 2_524_607_999, 2_524_608_000, 253_402_300_799] {
            let at = UnixTime(at);
            assert_eq!(choice(at).unwrap(), x509_time(at).unwrap().to_der().unwrap());
            assert_eq!(unix_time(x509_time(at).unwrap()), at);
        }
        assert_eq!(x509_time(UnixTime(-1)), Err(Error::UnrepresentableTime(-1)));
    }
}
