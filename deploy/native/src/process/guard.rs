//! The guard of one process, from the starter's side; the other side is `guard.sh`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::Inner;

/// Read by a shell, so that it works from a test binary, in which no other program of ours need be built.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guard.sh");

/// How long the stopped process has when its owner is gone: nobody waits for its data any more, and what it would drain
/// to is being stopped in the same moment.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// A guard on duty. Dropping it without [`Guard::release`] closes its life line: it stops what it guards.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    /// The write end is closed on exec, so no child of ours can hold the line up after we are gone.
    life_line: ChildStdin,
}

/// A guard that has been released and only needs to be reaped.
pub(super) struct Released(Child);

impl Guard {
    /// `dir_lock` becomes its standard output: the directory stays locked until the guard has done its work.
    pub(super) fn start(inner: &Inner, dir_lock: Option<&File>) -> io::Result<Self> {
        let stdout = dir_lock.map_or(Ok(Stdio::null()), |lock| lock.try_clone().map(Stdio::from))?;
        let tenths = inner.grace.min(ORPHAN_GRACE).as_millis().div_ceil(100);
        let signal = inner.stop_signal.as_str();
        let mut child = Command::new("sh")
            .arg(Path::new(SCRIPT))
            .args([&inner.name, &inner.identity.pid.to_string(), &inner.identity.born.to_string()])
            .args([signal.strip_prefix("SIG").unwrap_or(signal), &tenths.to_string()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let life_line = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, life_line })
    }

    /// Tells it that there is nothing left to guard.
    pub(super) fn release(mut self) -> Released {
        // A guard that is gone already needs no telling.
        let _gone = self.life_line.write_all(b"ended\n");
        Released(self.child)
    }
}

impl Released {
    pub(super) fn reap(mut self) {
        let _status = self.0.wait();
    }
}
