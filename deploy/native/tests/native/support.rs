//! What several tests need: the `native` binary as a parent to be killed, and looks at what is running.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use native::Identity;
use serde_json::Value;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);
const NATIVE: &str = env!("CARGO_BIN_EXE_native");

/// A stack directory that no other test uses.
pub(crate) fn dir(test: &str) -> PathBuf {
    native::stack_dir(&format!("test-{test}"))
}

/// `native --dir DIR ARGS`.
pub(crate) fn native(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(NATIVE);
    command.arg("--dir").arg(dir).args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end: its exit code, and all that it said.
pub(crate) fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// A stack in the foreground of another process, a group of its own as in a terminal.
pub(crate) struct Foreground {
    pub(crate) process: Child,
    output: BufReader<ChildStdout>,
}

impl Foreground {
    pub(crate) fn start(dir: &Path) -> Self {
        let mut process = native(dir, &["run"]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    pub(crate) fn wait_up(&mut self) {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Ctrl-C")), "it ended before it was up");
    }
}

/// The processes of a stack that `native` has written down, and the guard of each.
pub(crate) fn processes(dir: &Path) -> Vec<Identity> {
    let state: Value = serde_json::from_slice(&fs::read(dir.join("state.json")).unwrap()).unwrap();
    let members = state["members"].as_array().unwrap().iter();
    let servers: Vec<Identity> =
        members.map(|member| serde_json::from_value(member["process"].clone()).unwrap()).collect();
    assert!(servers.iter().all(|server| server.is_alive()));
    let guards: Vec<Identity> = servers.iter().map(|server| guard_of(*server)).collect();
    [servers, guards].concat()
}

/// The guard of a process that runs.
pub(crate) fn guard_of(guarded: Identity) -> Identity {
    let mut found = None;
    let look = || {
        // A program that has just been started may not show its arguments yet.
        found = find_guard(guarded);
        found.is_some()
    };
    native::wait_until(LIMIT, "the guard is seen", look).unwrap();
    found.unwrap()
}

/// Looks for `guard.sh NAME PID BORN …`.
fn find_guard(guarded: Identity) -> Option<Identity> {
    let (pid, born) = (guarded.pid.to_string(), guarded.born.to_string());
    let is_guard = |process: &Path| {
        let Ok(command) = fs::read(process.join("cmdline")) else { return false };
        let args: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        args.get(1).is_some_and(|script| script.ends_with(b"guard.sh"))
            && args.get(3) == Some(&pid.as_bytes())
            && args.get(4) == Some(&born.as_bytes())
    };
    let process = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).find(|path| is_guard(path))?;
    let pid: i32 = process.file_name()?.to_str()?.parse().ok()?;
    identity(pid)
}

/// The process that has this number now.
pub(crate) fn identity(pid: i32) -> Option<Identity> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let born = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(Identity { pid, born })
}

/// The children of a process.
pub(crate) fn children(parent: Identity) -> Vec<Identity> {
    let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.pid)).unwrap();
    list.split_ascii_whitespace().filter_map(|pid| identity(pid.parse().unwrap())).collect()
}

pub(crate) fn wait_gone(processes: &[Identity]) {
    let all_gone = || processes.iter().all(|process| !process.is_alive());
    native::wait_until(LIMIT, "nothing is left running", all_gone).unwrap();
}
