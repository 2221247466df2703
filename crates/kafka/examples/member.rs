//! A member of a group as a process of its own, for tests that kill and freeze it and for figures: see
//! `tests/support/member.rs`. Writes its journal to standard output; leaves on SIGTERM.

#[path = "../tests/support/journal.rs"]
mod journal;
#[path = "../tests/support/member.rs"]
mod member;

use std::process::ExitCode;

use member::{Journal, MemberOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Wrong usage, as in sysexits.h.
const USAGE: u8 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = MemberOptions::from_args(&args) else {
        eprintln!(
            "usage: member BROKERS GROUP TOPIC CLIENT_ID SESSION_MS HEARTBEAT_MS REBALANCE_MS COMMIT_MS REQUEST_MS"
        );
        return ExitCode::from(USAGE);
    };
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate()).expect("a signal handler");
    let stopping = stop.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        stopping.cancel();
    });
    member::run(options, Journal::StandardOutput, stop).await;
    ExitCode::SUCCESS
}
