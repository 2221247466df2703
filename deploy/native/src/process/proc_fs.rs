//! What /proc says about a process: when it was born, and which children it has.

use std::fs;
use std::io;
use std::process::Child;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Which process: numbers are used again, but not by one born at the same tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process number.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was (field 22 of `/proc/PID/stat`).
    pub born: u64,
}

impl Identity {
    /// Of this very process.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn of_self() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    pub(super) fn of_child(child: &Child) -> io::Result<Self> {
        Self::of(child.id())
    }

    fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let born = fields(&stat).nth(19).and_then(|field| field.parse().ok());
        born.map(|born| Self { pid, born }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Whether that process is still running (and is not merely waiting to be reaped).
    pub fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let mut fields = fields(&stat);
        fields.next() != Some("Z") && fields.nth(18).and_then(|field| field.parse().ok()) == Some(self.born)
    }
}

/// The fields from the third on; the second, the command, may hold blanks and brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rfind(')').map_or("", |end| &stat[end + 1..]).split_ascii_whitespace()
}

/// The children of all threads of a process; none where the kernel does not tell.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(parse_pid).collect::<Vec<_>>()).collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_brackets_does_not_shift_the_fields() {
        assert_eq!(fields("12 (a) b (c) S 1 12").collect::<Vec<_>>(), ["S", "1", "12"]);
    }

    #[test]
    fn this_process_is_alive_and_its_number_at_another_time_is_not() {
        let me = Identity::of_self().unwrap();
        assert!(me.is_alive());
        assert!(!Identity { born: me.born + 1, ..me }.is_alive());
    }
}
