//! What the figures were taken on.

use std::fs;

/// One line: processors, memory, load at the start. A figure from a busy machine is worth less.
pub(crate) fn facts() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor unknown".to_owned());
    let memory_kib: f64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN);
    let gib = memory_kib / 1_048_576.0;
    format!("machine: {cpus} × {model}, {gib:.1} GiB, load {:.1} at the start", load())
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}
