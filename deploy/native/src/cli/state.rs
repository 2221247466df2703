//! What `up` leaves behind for `down`, `status` and people: DIR/state.json, readable by its owner alone as it holds the
//! password of the database.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::Identity;

const FILE: &str = "state.json";

/// How far the supervisor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    Starting,
    Up,
}

/// A stack in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) supervisor: Identity,
    pub(super) members: Vec<Member>,
}

/// A server or a service of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its users find it.
    pub(super) address: String,
    /// Where its metrics are, for a service.
    pub(super) metrics: Option<String>,
    pub(super) process: Option<Identity>,
}

impl Member {
    fn line(&self) -> String {
        let metrics = self.metrics.as_ref().map(|metrics| format!("metrics {metrics}"));
        let places = [Some(self.address.clone()).filter(|address| !address.is_empty()), metrics];
        format!("  {:<17} {}", self.name, places.into_iter().flatten().collect::<Vec<_>>().join("  "))
    }

    fn status_line(&self) -> String {
        let status = match self.process {
            Some(process) if process.is_alive() => format!("running, process {}", process.pid),
            Some(process) => format!("ENDED, was process {}", process.pid),
            None => "ENDED".to_owned(),
        };
        format!("{}  ({status})", self.line())
    }
}

impl State {
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Whoever reads meanwhile sees the old state or the new one.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let fresh = dir.join("state.json.new");
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&fresh, dir.join(FILE))
    }

    pub(super) fn remove(dir: &Path) {
        let _none: Result<(), io::Error> = fs::remove_file(dir.join(FILE));
    }

    /// For people: who is where.
    pub(super) fn addresses(&self) -> String {
        self.members.iter().map(Member::line).collect::<Vec<_>>().join("\n")
    }

    /// For people: who is where and lives.
    pub(super) fn status(&self) -> String {
        let lines: Vec<String> = self.members.iter().map(Member::status_line).collect();
        match self.phase {
            Phase::Starting => "starting".to_owned(),
            Phase::Up => lines.join("\n"),
        }
    }
}

/// The log files of a stack, by name.
pub(super) fn log_files(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir.join("logs")).into_iter().flatten().flatten();
    let mut files: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter_map(|path| Some((path.file_stem()?.to_string_lossy().into_owned(), path)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_state_is_read_back_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Identity::of_self().unwrap();
        let redis = Member {
            name: "redis".to_owned(),
            address: "redis://127.0.0.1:6379".to_owned(),
            metrics: None,
            process: Some(supervisor),
        };
        let state = State { phase: Phase::Up, supervisor, members: vec![redis] };
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()), Some(state.clone()));
        assert_eq!(state.addresses(), "  redis             redis://127.0.0.1:6379");
        assert!(state.status().ends_with(&format!("(running, process {})", supervisor.pid)));
        State::remove(dir.path());
        assert_eq!(State::read(dir.path()), None);
    }
}
