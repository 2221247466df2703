//! The logs of a stack, each line with the name of who wrote it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, state};
use crate::wait;

/// How much of each log is shown at first.
const TAIL_BYTES: u64 = 4 << 10;
/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

struct Log {
    name: String,
    path: PathBuf,
    shown: u64,
}

/// Shows the ends of the logs.
pub(super) fn show(dir: &Path, name: Option<&str>) -> Result<(), Failure> {
    open(dir, name)?.iter_mut().try_for_each(print_new).map_err(Failure::Output)
}

/// Shows the ends of the logs and what is added to them, until this process is interrupted.
pub(super) fn follow(dir: &Path, name: Option<&str>) -> Result<(), Failure> {
    let mut logs = open(dir, name)?;
    loop {
        logs.iter_mut().try_for_each(print_new)?;
        wait::pause(FOLLOW_INTERVAL);
    }
}

fn open(dir: &Path, name: Option<&str>) -> Result<Vec<Log>, Failure> {
    let files = state::log_files(dir);
    let known: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    let wanted = files.into_iter().filter(|(file, _)| name.is_none_or(|name| file == name));
    let logs: Vec<Log> = wanted.map(|(name, path)| Log { shown: start_of_tail(&path), name, path }).collect();
    match (logs.is_empty(), name) {
        (false, _) => Ok(logs),
        (true, Some(name)) if !known.is_empty() => {
            Err(Failure::Said(format!("no log of {name}; there are {}", known.join(", "))))
        }
        (true, _) => Err(Failure::Said(format!("no logs in {}: nothing was started there", dir.display()))),
    }
}

/// The beginning of a line, about 4 KiB before the end.
fn start_of_tail(path: &Path) -> u64 {
    let read = || -> io::Result<u64> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let rest_of_line =
            if from == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
        Ok(from + u64::try_from(rest_of_line).unwrap_or(0))
    };
    read().unwrap_or(0)
}

/// Prints the whole lines that were added.
fn print_new(log: &mut Log) -> io::Result<()> {
    let Ok(mut file) = File::open(&log.path) else { return Ok(()) };
    file.seek(SeekFrom::Start(log.shown))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut out = io::stdout().lock();
    for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
        writeln!(out, "{:<17}| {line}", log.name)?;
    }
    log.shown += u64::try_from(whole).unwrap_or(0);
    out.flush()
}
