//! Files that may change while we run: looked at once a second, by what their metadata says.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one version of a file from the next, also when it was replaced within the same second.
type Version = Option<(u64, u64, i64, i64)>;

/// Calls `changed` whenever one of `files` has changed, for ever.
pub(crate) async fn watch(files: Vec<PathBuf>, mut changed: impl FnMut()) {
    let mut known = versions(&files);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = versions(&files);
        if now != known {
            known = now;
            changed();
        }
    }
}

fn versions(files: &[PathBuf]) -> Vec<Version> {
    let version = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    files.iter().map(version).collect()
}
