//! Every way in which the owner of a stack can end: nothing of the stack is left.

use std::path::Path;

use native::{Identity, Stack, StackOptions};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::support::{Foreground, LIMIT, children, dir, processes, wait_gone};

/// A stack in the foreground, its process number, and all that must go.
fn up(dir: &Path) -> (Foreground, Pid, Vec<Identity>) {
    let mut foreground = Foreground::start(dir);
    foreground.wait_up();
    let pid = Pid::from_raw(foreground.process.id().cast_signed());
    (foreground, pid, processes(dir))
}

#[test]
fn a_kill_of_the_owner_leaves_nothing_running_and_the_directory_free() {
    let dir = dir("kill");
    let (mut foreground, owner, all) = up(&dir);
    kill(owner, Signal::SIGKILL).unwrap();
    foreground.process.wait().unwrap();
    // At once: the start waits for the guards of the stack that was killed.
    let next = Stack::start(StackOptions { dir, kafka: None, redis: true, postgres: false }).unwrap();
    wait_gone(&all);
    assert!(next.redis.is_running());
}

/// Once, the processes of a frozen database outlived their parent, frozen for good.
#[test]
fn frozen_servers_and_their_children_go_with_their_owner_too() {
    let dir = dir("kill-frozen");
    let (mut foreground, owner, all) = up(&dir);
    let (kafka, redis, postgres) = (all[0], all[1], all[2]);
    let children = children(postgres);
    assert!(children.len() > 2, "a database has its helpers");
    for frozen in [&[kafka, redis, postgres][..], &children].concat() {
        kill(Pid::from_raw(frozen.pid), Signal::SIGSTOP).unwrap();
    }
    kill(owner, Signal::SIGKILL).unwrap();
    foreground.process.wait().unwrap();
    wait_gone(&[all, children].concat());
}

#[test]
fn ctrl_c_stops_the_servers_in_good_order_before_the_owner_ends() {
    let dir = dir("ctrl-c");
    let (mut foreground, group, all) = up(&dir);
    killpg(group, Signal::SIGINT).unwrap();
    assert!(foreground.process.wait().unwrap().success());
    assert!(all[..3].iter().all(|server| !server.is_alive()));
    wait_gone(&all);
}

#[test]
fn ctrl_c_in_the_middle_of_a_start_leaves_nothing_running() {
    let dir = dir("ctrl-c-start");
    let mut foreground = Foreground::start(&dir);
    // The first server has been started, the last one has not answered yet.
    let log = dir.join("logs/redis.log");
    native::wait_until(LIMIT, "the start has begun", || log.exists()).unwrap();
    killpg(Pid::from_raw(foreground.process.id().cast_signed()), Signal::SIGINT).unwrap();
    foreground.process.wait().unwrap();
    let next = Stack::start(StackOptions { dir, kafka: None, redis: true, postgres: true }).unwrap();
    assert!(next.postgres.is_running());
}
