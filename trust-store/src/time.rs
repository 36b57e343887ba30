//! Points in time, as whole seconds since 1970-01-01T00:00:00Z, and their texts in RFC 5280 and RFC 3339.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// Seconds since the Unix epoch, negative before it. Leap seconds do not exist on this scale.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The time of a proleptic Gregorian date in UTC; `None` if a field is out of range.
    pub fn from_utc(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<Self> {
        if !(0..=9999).contains(&year)
            || !(1..=12).contains(&month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        if day == 0 || day > days_in_month(year, month) {
            return None;
        }
        let days = days_from_epoch(year, month, day);
        Some(Self(days * 86_400 + i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second)))
    }

    /// Reads the content of a DER `UTCTime`: exactly `YYMMDDHHMMSSZ`, years 1950 to 2049 (RFC 5280 §4.1.2.5.1).
    pub fn from_utc_time(content: &[u8]) -> Option<Self> {
        if content.len() != 13 || content.last() != Some(&b'Z') {
            return None;
        }
        let two = i64::from(digits(content.get(0..2)?)?);
        let year = if two >= 50 { 1900 + two } else { 2000 + two };
        Self::from_digits(year, content.get(2..12)?)
    }

    /// Reads the content of a DER `GeneralizedTime`: exactly `YYYYMMDDHHMMSSZ`, no fraction (RFC 5280 §4.1.2.5.2).
    pub fn from_generalized_time(content: &[u8]) -> Option<Self> {
        if content.len() != 15 || content.last() != Some(&b'Z') {
            return None;
        }
        Self::from_digits(i64::from(digits(content.get(0..4)?)?), content.get(4..14)?)
    }

    /// Reads an RFC 3339 text; a fraction of a second is cut off, an offset is applied.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 20 || bytes.len() > 40 {
            return None;
        }
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, want)| bytes.get(*at) != Some(want)) {
            return None;
        }
        if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
            return None;
        }
        let field = |from: usize, to: usize| bytes.get(from..to).and_then(digits);
        let local = Self::from_utc(
            i64::from(field(0, 4)?),
            field(5, 7)?,
            field(8, 10)?,
            field(11, 13)?,
            field(14, 16)?,
            field(17, 19)?.min(59), // RFC 3339 allows a leap second; this scale folds it into the one before
        )?;
        if field(17, 19)? > 60 {
            return None;
        }
        let mut rest = bytes.get(19..)?;
        if let Some(fraction) = rest.strip_prefix(b".") {
            let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if length == 0 {
                return None;
            }
            rest = fraction.get(length..)?;
        }
        let offset = match rest {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
                let (hours, minutes) = (digits(hours)?, digits(&[*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let seconds = i64::from(hours) * 3_600 + i64::from(minutes) * 60;
                if *sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        Some(Self(local.0 - offset))
    }

    /// The RFC 3339 text in UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub fn to_rfc3339(self) -> String {
        let days = self.0.div_euclid(86_400);
        let seconds = self.0.rem_euclid(86_400);
        let (year, month, day) = date_from_days(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }

    /// This time and `seconds` more (or fewer); stays at the end of the scale instead of wrapping.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The seconds from `earlier` to this time; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    fn from_digits(year: i64, rest: &[u8]) -> Option<Self> {
        let field = |from: usize| rest.get(from..from + 2).and_then(digits);
        Self::from_utc(year, field(0)?, field(2)?, field(4)?, field(6)?, field(8)?)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, counted in eras of 400 years that start on 1 March so that the leap day comes last.
fn days_from_epoch(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_der_forms() {
        assert_eq!(UnixTime::from_utc_time(b"700101000000Z"), Some(UnixTime(0)));
        assert_eq!(UnixTime::from_utc_time(b"491231235959Z"), UnixTime::from_utc(2049, 12, 31, 23, 59, 59));
        assert_eq!(UnixTime::from_utc_time(b"500101000000Z"), UnixTime::from_utc(1950, 1, 1, 0, 0, 0));
        assert_eq!(UnixTime::from_generalized_time(b"20500101000000Z"), Some(UnixTime(2_524_608_000)));
    }

    #[test]
    fn refuses_der_times_that_are_not_canonical() {
        for bad in [
            &b"7001010000Z"[..],
            b"700101000000+0000",
            b"700101000000",
            b"701301000000Z",
            b"700230000000Z",
            b"70010100006aZ",
        ] {
            assert_eq!(UnixTime::from_utc_time(bad), None);
        }
        for bad in [&b"20500101000000.5Z"[..], b"205001010000Z", b"20500101240000Z", b"20230229000000Z"] {
            assert_eq!(UnixTime::from_generalized_time(bad), None);
        }
    }

    #[test]
    fn reads_rfc3339_with_offset_and_fraction() {
        assert_eq!(UnixTime::from_rfc3339("1970-01-01T01:00:00.25+01:00"), Some(UnixTime(0)));
        assert_eq!(UnixTime::from_rfc3339("1969-12-31T22:30:00-01:30"), Some(UnixTime(0)));
        assert_eq!(UnixTime::from_rfc3339("2024-02-29t12:00:00z"), UnixTime::from_utc(2024, 2, 29, 12, 0, 0));
        for bad in [
            "",
            "2024-02-30T00:00:00Z",
            "2024-02-28T00:00:00",
            "2024-02-28T00:00:00.Z",
            "2024-02-28T00:00:61Z",
        ] {
            assert_eq!(UnixTime::from_rfc3339(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn rfc3339_round_trips(seconds in -62_167_219_200_i64..253_402_300_800) {
            let time = UnixTime(seconds);
            proptest::prop_assert_eq!(UnixTime::from_rfc3339(&time.to_rfc3339()), Some(time));
        }
    }
}
