//! Metrics of the process itself, read from /proc/self at each scrape (names as in Prometheus client libraries).

use std::fmt::Write as _;
use std::fs;

/// Linux reports CPU time to user space in hundredths of a second (`USER_HZ`), whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Prometheus text; a figure that cannot be read (not Linux) is left out rather than reported as 0.
pub(crate) fn render() -> String {
    let mut out = String::new();
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)) {
        metric(&mut out, "process_cpu_seconds_total", "counter", "User and system CPU time spent.", seconds);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (key, name, help) in [
            ("VmRSS:", "process_resident_memory_bytes", "Resident memory."),
            ("VmHWM:", "process_resident_memory_peak_bytes", "Largest resident memory so far."),
        ] {
            if let Some(kibibytes) = status_value(&status, key) {
                metric(&mut out, name, "gauge", help, kibibytes * 1024.0);
            }
        }
        if let Some(threads) = status_value(&status, "Threads:") {
            metric(&mut out, "process_threads", "gauge", "Operating-system threads.", threads);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        metric(&mut out, "process_open_fds", "gauge", "Open file descriptors.", entries.count() as f64);
    }
    out
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// Fields 14 and 15 (utime, stime) of proc(5) stat; the command name before them may itself hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn status_value(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_awkward_command_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 3 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(4.0));
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(status_value("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048.0));
    }
}
