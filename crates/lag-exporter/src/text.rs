//! Prometheus' text format, with a bound on the number of series.

use std::fmt::{self, Write as _};

use crate::metrics::Family;

/// Text of series that come and go with what they speak of.
#[derive(Debug)]
pub(crate) struct Text {
    out: String,
    written: usize,
    max: usize,
    cut: usize,
}

impl Text {
    /// Room for `max` series; what comes after them is counted, and left out.
    pub(crate) fn bounded(max: usize) -> Self {
        Self { out: String::new(), written: 0, max, cut: 0 }
    }

    pub(crate) fn header(&mut self, family: &Family) {
        // Writing into a String cannot fail.
        let Family { name, kind, help } = family;
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One series; `labels` with their braces, or empty. What is no number has none.
    pub(crate) fn series(&mut self, family: &Family, labels: &str, value: impl Into<Number>) {
        let value = value.into();
        if matches!(value, Number::Seconds(seconds) if !seconds.is_finite()) {
            return;
        }
        if self.written == self.max {
            self.cut += 1;
            return;
        }
        self.written += 1;
        self.out.push_str(family.name);
        self.out.push_str(labels);
        self.out.push(' ');
        let _ = writeln!(self.out, "{value}");
    }

    /// Whether there is room for a block that must not be cut in the middle; what there is none for is counted.
    pub(crate) fn reserve(&mut self, block: usize, reserved: &mut usize) -> bool {
        let fits = self.written + *reserved + block <= self.max;
        if fits {
            *reserved += block;
        } else {
            self.cut += block;
        }
        fits
    }

    pub(crate) fn written(&self) -> usize {
        self.written
    }

    pub(crate) fn cut(&self) -> usize {
        self.cut
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }
}

/// What a series can have for a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Count(u64),
    Offset(i64),
    Seconds(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<i64> for Number {
    fn from(offset: i64) -> Self {
        Self::Offset(offset)
    }
}

impl From<f64> for Number {
    fn from(seconds: f64) -> Self {
        Self::Seconds(seconds)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Offset(offset) => offset.fmt(f),
            Self::Seconds(seconds) => seconds.fmt(f),
        }
    }
}

/// A label value, escaped as the format wants it.
pub(crate) struct Label<'a>(pub(crate) &'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(['\\', '"', '\n']) {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

/// Label sets that several families have in common, written once.
#[derive(Debug, Default)]
pub(crate) struct LabelSets {
    text: String,
    ends: Vec<usize>,
}

impl LabelSets {
    pub(crate) fn add(&mut self, labels: fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(labels);
        self.ends.push(self.text.len());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family { name: "a", kind: "gauge", help: "An a." };

    #[test]
    fn what_is_no_number_has_no_series() {
        let mut text = Text::bounded(10);
        text.series(&FAMILY, "", f64::NAN);
        text.series(&FAMILY, "", f64::INFINITY);
        text.series(&FAMILY, "{b=\"c\"}", 0.5);
        assert_eq!(text.finish(), "a{b=\"c\"} 0.5\n");
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_and_left_out() {
        let mut text = Text::bounded(2);
        (0..5_u64).for_each(|number| text.series(&FAMILY, "", number));
        assert!(!text.reserve(4, &mut 0));
        assert_eq!((text.written(), text.cut(), text.finish().as_str()), (2, 7, "a 0\na 1\n"));
    }

    #[test]
    fn a_block_is_reserved_whole_or_not_at_all() {
        let (mut text, mut reserved) = (Text::bounded(10), 0);
        assert_eq!(
            [text.reserve(6, &mut reserved), text.reserve(5, &mut reserved), text.reserve(4, &mut reserved)],
            [true, false, true]
        );
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(Label("a\"b\\c\nd").to_string(), r#"a\"b\\c\nd"#);
    }
}
