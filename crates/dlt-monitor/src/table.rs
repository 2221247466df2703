//! Text for a terminal: columns, and strangers' words without what would steer the terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// How a cell stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Columns as wide as what is in them. The last one is not padded.
pub(crate) fn columns(heads: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let head: Vec<_> = heads.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, side)) in row.iter().zip(&widths).zip(heads) {
            let space = if line.is_empty() { "" } else { "  " };
            let _ = match side {
                Side::Left => write!(line, "{space}{cell:<width$}"),
                Side::Right => write!(line, "{space}{cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A stranger's text in one line of at most `max` characters, control characters escaped.
pub(crate) fn tame(text: &str, max: usize) -> String {
    let mut tamed = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            tamed.push('…');
            break;
        }
        if c.is_control() { tamed.extend(c.escape_debug()) } else { tamed.push(c) }
    }
    tamed
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Writes to standard output. A reader that closed early (`| head`) is no fault, but nothing more need be said to it.
pub(crate) fn say(text: &str) -> bool {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [["a", "1"], ["long", "22,000"]].map(|row| row.map(str::to_owned).to_vec());
        let text = columns(&[("what", Side::Left), ("n", Side::Right)], &rows);
        assert_eq!(text, "what       n\na          1\nlong  22,000\n");
    }

    #[test]
    fn strangers_words_cannot_steer_a_terminal() {
        assert_eq!(tame("a\u{1b}[2Jb\nc", 100), "a\\u{1b}[2Jb\\nc");
        assert_eq!(tame(&"x".repeat(1_000), 3), "xxx…");
    }

    #[test]
    fn digits_stand_in_groups() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
