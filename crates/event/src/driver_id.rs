//! A driver's id: never empty, never unprintable, never longer than a Redis key or a log line bears.

use std::borrow::Cow;
use std::fmt;

use crate::Reason;

/// 1 to 128 bytes of printable UTF-8. Personal data: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DriverId(Box<str>);

impl DriverId {
    /// The longest id in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id's text, without a copy.
    #[must_use]
    pub fn into_inner(self) -> Box<str> {
        self.0
    }

    fn check(text: &str) -> Result<(), Reason> {
        match text.len() {
            0 => Err(Reason::InvalidDriverId),
            1..=Self::MAX_BYTES if is_printable(text) => Ok(()),
            _ => Err(Reason::InvalidDriverId),
        }
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(is_printable_char)
}

/// Printable as the standard library sees it: neither control, format, private nor unassigned, no odd white space.
fn is_printable_char(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // At the start of a text combining marks are escaped too, and they are fine inside an id: so a letter goes first.
    let mut text = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

impl TryFrom<&str> for DriverId {
    type Error = Reason;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::check(text).map(|()| Self(text.into()))
    }
}

impl TryFrom<String> for DriverId {
    type Error = Reason;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::check(&text).map(|()| Self(text.into_boxed_str()))
    }
}

impl TryFrom<Cow<'_, str>> for DriverId {
    type Error = Reason;

    fn try_from(text: Cow<'_, str>) -> Result<Self, Self::Error> {
        match text {
            Cow::Borrowed(text) => Self::try_from(text),
            Cow::Owned(text) => Self::try_from(text),
        }
    }
}

impl AsRef<str> for DriverId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DriverId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DriverId({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_ids_are_taken() {
        let longest = "x".repeat(128);
        let widest = "é".repeat(64);
        for id in
            ["d", "driver-17", "a b", "\"quoted\"\\", "Jörg", "e\u{301}", "運転手", "🚕", "{x}:y", &longest, &widest]
        {
            assert_eq!(DriverId::try_from(id).as_ref().map(DriverId::as_str), Ok(id));
        }
    }

    #[test]
    fn empty_long_and_unprintable_ids_are_refused() {
        let long = "x".repeat(129);
        let wide = "é".repeat(65);
        for id in [
            "",
            &long,
            &wide,
            "a\0b",
            "a\nb",
            "\t",
            "\u{7f}",
            "\u{85}",
            "\u{200b}",
            "\u{202e}x",
            "\u{feff}",
            "\u{e000}",
            "\u{10ffff}",
        ] {
            assert_eq!(DriverId::try_from(id), Err(Reason::InvalidDriverId), "{id:?}");
            assert_eq!(DriverId::try_from(id.to_owned()), Err(Reason::InvalidDriverId), "{id:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_id() {
        let shown = format!("{:?}", DriverId::try_from("driver-17").unwrap());
        assert_eq!(shown, "DriverId(9 bytes)");
    }
}
