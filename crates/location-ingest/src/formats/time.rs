//! Moments as text: RFC 3339 and its relatives, without a calendar library.

/// Milliseconds since the epoch of `2026-11-24T03:46:08.250Z`, also with an offset (`-07:00`, `-0700`), with a space
/// instead of the T, and without an offset, which then is UTC.
pub(super) fn parse_ms(text: &str) -> Option<i64> {
    let mut reader = Reader(text.trim().as_bytes());
    let year = reader.digits(4)?;
    reader.one(b"-")?;
    let month = reader.digits(2).filter(|month| (1..=12).contains(month))?;
    reader.one(b"-")?;
    let day = reader.digits(2).filter(|day| (1..=days_in(year, month)).contains(day))?;
    reader.one(b"Tt ")?;
    let hour = reader.digits(2).filter(|hour| *hour < 24)?;
    reader.one(b":")?;
    let minute = reader.digits(2).filter(|minute| *minute < 60)?;
    reader.one(b":")?;
    // A leap second is the first of the next minute.
    let second = reader.digits(2).filter(|second| *second <= 60)?;
    let fraction_ms = reader.fraction_ms()?;
    let offset_minutes = reader.offset_minutes()?;
    let seconds = (days(year, month, day) * 24 + hour) * 3_600 + minute * 60 + second - offset_minutes * 60;
    reader.0.is_empty().then_some(seconds * 1_000 + fraction_ms)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn one(&mut self, of: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        of.contains(first).then(|| self.0 = rest)?;
        Some(*first)
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        (0..count).try_fold(0, |number, _| Some(number * 10 + i64::from(self.one(b"0123456789")? - b'0')))
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        if self.one(b".,").is_none() {
            return Some(0);
        }
        let (mut value, mut unit, mut count) = (0, 100, 0);
        while let Some(digit) = self.one(b"0123456789") {
            value += i64::from(digit - b'0') * unit;
            unit /= 10;
            count += 1;
        }
        (count > 0).then_some(value)
    }

    fn offset_minutes(&mut self) -> Option<i64> {
        let Some(sign) = self.one(b"Zz+-") else { return Some(0) };
        if matches!(sign, b'Z' | b'z') {
            return Some(0);
        }
        let hours = self.digits(2).filter(|hours| *hours < 24)?;
        let _ = self.one(b":");
        let minutes = hours * 60 + self.digits(2).filter(|minutes| *minutes < 60)?;
        Some(if sign == b'-' { -minutes } else { minutes })
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of the Gregorian calendar, counted in eras of 400 years from a March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month_from_march) = (year.div_euclid(400), (month + 9) % 12);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_in_their_usual_forms() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2015-10-01T08:00:00-0700", 1_443_711_600_000),
            ("2015-10-01T08:00:00-07:00", 1_443_711_600_000),
            ("2026-11-24T03:46:08.250Z", 1_795_491_968_250),
            ("2026-11-24 03:46:08", 1_795_491_968_000),
            ("2024-02-29T23:59:60Z", 1_709_251_200_000),
            ("2000-03-01T00:00:00.123456+05:30", 951_849_000_123),
        ] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "now",
            "2026-11-24",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-11-24T25:00:00Z",
            "2026-11-24T03:46:08.Z",
            "2026-11-24T03:46:08Zx",
            "2026-11-24T03:46:08+9",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = parse_ms(&text);
        }

        #[test]
        fn agrees_with_httpdate(seconds in 0..4_102_444_800_u64) {
            let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(moment);
            let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
            let month = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".find(month).unwrap() / 3;
            prop_assert_eq!(parse_ms(&format!("{year}-{month:02}-{day}T{time}Z")), Some(seconds as i64 * 1_000));
        }
    }
}
