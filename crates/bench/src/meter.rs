//! CPU and memory of processes.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::error::Error;

/// Ticks per second of the times in /proc: USER_HZ, which is 100 wherever Linux runs this.
const USER_HZ: f64 = 100.0;

/// CPU that this process has used so far, user and system, in seconds.
pub(crate) fn own_cpu_s() -> f64 {
    used_s(UsageWho::RUSAGE_SELF)
}

/// CPU of those children of this process that have ended and been waited for, in seconds.
pub(crate) fn children_cpu_s() -> f64 {
    used_s(UsageWho::RUSAGE_CHILDREN)
}

fn used_s(who: UsageWho) -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(who).map_or(f64::NAN, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The most memory that this process ever had resident, in MiB.
pub(crate) fn own_peak_rss_mib() -> f64 {
    peak_rss_mib("self")
}

/// The same of another process, by its number.
pub(crate) fn peak_rss_mib(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

/// CPU that another process has used so far, user and system, in seconds; good to 10 ms.
pub(crate) fn cpu_s(pid: i32) -> Result<f64, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    parse_stat(&text).ok_or_else(|| Error::Client(format!("{path} is not as expected")))
}

/// Time for which a process's first thread was ready to run and had no core, in seconds: what others took from it.
pub(crate) fn waited_s(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns / 1e9)
}

fn parse_stat(text: &str) -> Option<f64> {
    // The command stands in parentheses and may hold anything; utime and stime are fields 14 and 15 (proc(5)).
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_look_like_fields() {
        assert_eq!(parse_stat("42 (a) b (c 9) S 7 42 42 0 -1 0 0 0 0 0 150 50 33 44 20 0 1"), Some(2.0));
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        assert!(own_cpu_s() >= 0.0 && own_peak_rss_mib() > 0.5);
        assert!(cpu_s(std::process::id().cast_signed()).is_ok());
    }
}
