//! A single process: its way in, its way out, its guard.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use native::{Error, Identity, Launch, Process, Signal};

use crate::support::{LIMIT, guard_of, identity, wait_gone};

/// A shell script under a guard, with a log of its own.
fn shell(test: &str, script: &str) -> (Launch, PathBuf) {
    let log = native::native_dir().join("test-process").join(format!("{test}.log"));
    let _none = fs::remove_file(&log);
    (Launch::new(test, "sh", &log).args(["-c", script]), log)
}

fn wait_for_log(process: &Process, text: &str) {
    native::wait_until(LIMIT, text, || process.log_tail().contains(text)).unwrap();
}

fn is_frozen(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")
}

/// The child whose number the script has printed.
fn child_in_log(process: &Process) -> Identity {
    let pid = process.log_tail().trim().strip_prefix("child ").unwrap().parse().unwrap();
    identity(pid).unwrap()
}

#[test]
fn output_input_and_exit_code_are_its_own() {
    let (launch, log) = shell("exit-code", r#"read -r word; echo "said $WORD, read '$word'""#);
    let process = Process::spawn(&launch.env("WORD", "hello")).unwrap();
    assert!(process.wait(LIMIT).unwrap().success());
    assert_eq!(fs::read_to_string(log).unwrap(), "said hello, read ''\n");

    let (launch, _) = shell("exit-code-64", "exit 64");
    let process = Process::spawn(&launch).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap().code(), Some(64));
    assert_eq!(process.status().unwrap().code(), Some(64));
}

#[test]
fn a_guard_goes_when_its_process_has_ended() {
    let (launch, _) = shell("ended", "exec sleep 1000");
    let process = Process::spawn(&launch).unwrap();
    let guard = guard_of(process.identity());
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait(LIMIT).unwrap().signal(), Some(15));
    wait_gone(&[guard]);
}

#[test]
fn a_signal_reaches_the_program_itself() {
    // Not INT: a shell cannot trap what was ignored when it started, as INT is below a script's `command &`.
    let (launch, _) = shell("signal", "trap 'echo caught; exit 3' USR1; echo set; while :; do sleep 0.05; done");
    let process = Process::spawn(&launch).unwrap();
    wait_for_log(&process, "set");
    process.signal(Signal::SIGUSR1);
    assert_eq!(process.wait(LIMIT).unwrap().code(), Some(3));
}

#[test]
fn a_process_that_ignores_its_stop_signal_is_killed_after_its_grace() {
    let (launch, _) = shell("stubborn", "trap '' TERM; echo set; while :; do sleep 0.05; done");
    let process = Process::spawn(&launch.stopped_by(Signal::SIGTERM, Duration::from_millis(300))).unwrap();
    wait_for_log(&process, "set");
    assert_eq!(process.stop().signal(), Some(9));
}

#[test]
fn a_process_and_its_children_are_frozen_and_thawed() {
    let (launch, _) = shell("frozen", "sleep 1000 & echo child $!; wait");
    let process = Process::spawn(&launch).unwrap();
    wait_for_log(&process, "child");
    let child = child_in_log(&process);
    let both = [process.pid(), child.pid];
    for _ in 0..3 {
        process.freeze();
        native::wait_until(LIMIT, "both stand still", || both.into_iter().all(is_frozen)).unwrap();
        process.thaw();
        native::wait_until(LIMIT, "both go on", || !both.into_iter().any(is_frozen)).unwrap();
    }
    process.kill();
    wait_gone(&[child]);
}

#[test]
fn a_frozen_process_can_be_stopped() {
    let (launch, _) = shell("stopped-frozen", "exec sleep 1000");
    let process = Process::spawn(&launch).unwrap();
    process.freeze();
    native::wait_until(LIMIT, "it stands still", || is_frozen(process.pid())).unwrap();
    assert_eq!(process.stop().signal(), Some(15));
}

#[test]
fn a_dropped_process_is_stopped_and_its_guard_too() {
    let (launch, _) = shell("dropped", "exec sleep 1000");
    let process = Process::spawn(&launch).unwrap();
    let both = [process.identity(), guard_of(process.identity())];
    drop(process);
    wait_gone(&both);
}

#[test]
fn children_are_killed_with_it() {
    let (launch, _) = shell("family", "sleep 1000 & echo child $!; wait");
    let process = Process::spawn(&launch).unwrap();
    wait_for_log(&process, "child");
    let child = child_in_log(&process);
    process.kill();
    wait_gone(&[child]);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let log = native::native_dir().join("test-process/missing.log");
    let error = Process::spawn(&Launch::new("missing", "no-such-program", log)).unwrap_err();
    assert_eq!(error.to_string(), "no-such-program: no such program");
}

#[test]
fn an_early_end_is_reported_with_the_end_of_this_starts_log() {
    let (launch, _) = shell("early-end", "echo the reason; exit 5");
    for _ in 0..2 {
        let process = Process::spawn(&launch).unwrap();
        let error = process.wait_ready("http://127.0.0.1:9/readyz", LIMIT).unwrap_err();
        let Error::Ended { status, tail, .. } = &error else { panic!("{error}") };
        assert_eq!((status.code(), tail.as_str()), (Some(5), "the reason"));
    }
}
