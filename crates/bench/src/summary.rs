//! The result for people and for programs.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::line::Line;
use crate::thresholds::THRESHOLDS;

/// Writes the lines as JSON; returns where.
pub(crate) fn write(lines: &[Line]) -> Result<PathBuf, Error> {
    let dir = native::target_dir().join("bench");
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let path = dir.join("summary.json");
    let json = serde_json::to_string_pretty(lines).map_err(Error::client)?;
    fs::write(&path, json + "\n").map_err(Error::io("write", &path))?;
    Ok(path)
}

/// The table, a verdict behind each line that has a bound.
pub(crate) fn table(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("\n{:<width$}  {:>12}  {:>12}  {:>6}  unit\n", "line", "ours", "reference", "ratio");
    for line in lines {
        let bounds: Vec<String> = line.bounds().map(|bound| bound.to_string()).collect();
        let verdict = match (bounds.is_empty(), line.passes()) {
            (true, _) => String::new(),
            (false, true) => format!("  ok ({})", bounds.join(", ")),
            (false, false) => format!("  FAIL ({})", bounds.join(", ")),
        };
        let (name, ours, reference) = (&line.name, figure(line.ours), figure(line.reference));
        let (ratio, unit, what) = (line.ratio, line.unit, &line.reference_what);
        // Writing to a string cannot fail.
        let _fine = writeln!(
            text,
            "{name:<width$}  {ours:>12}  {reference:>12}  {ratio:>6.2}  {unit}; reference: {what}{verdict}"
        );
    }
    text
}

/// Lines that have a threshold and were not measured, of the benches whose names begin like `benches`.
pub(crate) fn missing<'a>(lines: &'a [Line], benches: &'a [&str]) -> impl Iterator<Item = &'static str> + 'a {
    let names = THRESHOLDS.iter().map(|(name, _)| *name);
    names.filter(|name| {
        benches.iter().any(|bench| name.starts_with(bench)) && !lines.iter().any(|line| line.name == *name)
    })
}

/// Three figures that count, or whole numbers.
pub(crate) fn figure(number: f64) -> String {
    if number.abs() >= 100.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Where the summary lies, as it is shown.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(native::root_dir()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_that_forgets_a_line_with_a_threshold_is_caught() {
        let lines = [Line::new("kafka-fetch-cpu", 0.5, ("x", 1.0), "µs")];
        assert!(missing(&lines, &["kafka"]).any(|name| name == "kafka-consume-broker"));
        assert!(missing(&lines, &["kafka"]).all(|name| name != "kafka-fetch-cpu"));
        assert_eq!(missing(&lines, &["no-such-bench"]).count(), 0);
    }

    #[test]
    fn the_table_says_which_line_fails() {
        let lines =
            [Line::new("kafka-fetch-cpu", 0.7, ("x", 1.0), "µs"), Line::new("other", 1_234.5, ("y", 2.0), "/s")];
        let text = table(&lines);
        assert!(text.contains("FAIL (ours ≤ 0.6)") && text.contains("1234"), "{text}");
    }
}
