//! CPU and memory from /proc. A server counts with its children: PostgreSQL is a tree of them, and others may run under a wrapper.

use std::collections::HashMap;
use std::fs;

/// Ticks per second of the times in /proc: USER_HZ, which is 100 wherever Linux runs this.
const USER_HZ: f64 = 100.0;
/// KiB in a MiB and MiB in a GiB.
const KIBI: f64 = 1_024.0;

/// Time that the processors of the machine spent, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// Not idle.
    pub busy: u64,
    /// Altogether.
    pub total: u64,
}

impl MachineTime {
    /// The machine's time since it started; `None` where /proc/stat cannot be read.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; guest times are within user and nice already (proc(5)).
        let times: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        let total = times.iter().sum();
        let idle = times.get(3)? + times.get(4)?;
        Some(Self { busy: total - idle, total })
    }

    /// Busy share of the time from `earlier` to this reading, 0 to 1.
    #[must_use]
    pub fn busy_share_since(&self, earlier: &Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        Some(self.busy.saturating_sub(earlier.busy) as f64 / total as f64)
    }
}

/// CPU and memory of one process with its children.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Seconds of CPU since its start, those of children that ended included.
    pub cpu_s: f64,
    /// Resident memory in MiB; what children share with each other counts once.
    pub rss_mib: f64,
}

/// All processes of the machine at one moment.
#[derive(Debug, Default)]
pub struct Processes {
    stats: HashMap<u32, Stat>,
    children: HashMap<u32, Vec<u32>>,
}

impl Processes {
    /// Reads /proc.
    #[must_use]
    pub fn read() -> Self {
        let mut processes = Self::default();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            // A process may end while it is looked at.
            if let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| Stat::parse(&text))
            {
                processes.children.entry(stat.parent).or_default().push(pid);
                processes.stats.insert(pid, stat);
            }
        }
        processes
    }

    /// What `root` and everything below it has used; `None` when it does not run.
    #[must_use]
    pub fn usage(&self, root: u32) -> Option<Usage> {
        self.stats.get(&root)?;
        let tree = self.tree(root);
        let ticks = tree.iter().filter_map(|pid| self.stats.get(pid)).map(|stat| stat.own + stat.reaped).sum::<u64>();
        let memory = tree.iter().filter_map(|pid| Memory::read(*pid));
        Some(Usage { cpu_s: ticks as f64 / USER_HZ, rss_mib: Memory::together(memory) / KIBI })
    }

    /// What this process itself has used: the servers are its children.
    #[must_use]
    pub fn own_usage(&self) -> Option<Usage> {
        let pid = std::process::id();
        let memory = Memory::together(Memory::read(pid).into_iter());
        Some(Usage { cpu_s: self.stats.get(&pid)?.own as f64 / USER_HZ, rss_mib: memory / KIBI })
    }

    fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(pid) = tree.get(next) {
            tree.extend(self.children.get(pid).into_iter().flatten());
            next += 1;
        }
        tree
    }
}

#[derive(Debug)]
struct Stat {
    parent: u32,
    /// Ticks of the process.
    own: u64,
    /// Ticks of its children that ended and were waited for.
    reaped: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The command stands in parentheses and may hold anything, parentheses and spaces included.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // utime, stime, cutime, cstime: 14 to 17 in proc(5), where the state is 3.
        let times: Vec<u64> = fields.get(11..15)?.iter().map_while(|field| field.parse().ok()).collect();
        let [user, system, child_user, child_system] = times.try_into().ok()?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, own: user + system, reaped: child_user + child_system })
    }
}

/// Resident memory of a process in KiB, by what backs it.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    anonymous: f64,
    file: f64,
    shared: f64,
}

impl Memory {
    fn read(pid: u32) -> Option<Self> {
        fs::read_to_string(format!("/proc/{pid}/status")).ok().map(|text| Self::parse(&text))
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0.0)
        };
        Self { anonymous: field("RssAnon:"), file: field("RssFile:"), shared: field("RssShmem:") }
    }

    /// Memory of a tree: its own pages add up, while files and shared memory are mostly the same ones, so that the largest counts.
    fn together(all: impl Iterator<Item = Self>) -> f64 {
        let sum = all.fold(Self::default(), |sum, one| Self {
            anonymous: sum.anonymous + one.anonymous,
            file: sum.file.max(one.file),
            shared: sum.shared.max(one.shared),
        });
        sum.anonymous + sum.file + sum.shared
    }
}

/// Memory of the machine in GiB.
#[must_use]
pub fn memory_gib() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib / KIBI / KIBI)
}

/// CPU of a process over its restarts: each new process begins at zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    before: f64,
    now: f64,
}

impl Meter {
    /// Takes in a reading and gives the seconds since the first start.
    pub fn advance(&mut self, cpu_s: f64) -> f64 {
        if cpu_s < self.now {
            self.before += self.now;
        }
        self.now = cpu_s;
        self.before + self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_not_busy() {
        let earlier = MachineTime::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let later = MachineTime::parse("cpu  140 0 130 710 110 5 5 0 0 0\n").unwrap();
        assert_eq!(later.busy_share_since(&earlier), Some(0.8));
        assert_eq!(earlier.busy_share_since(&earlier), None);
    }

    #[test]
    fn a_command_may_look_like_fields() {
        let stat = Stat::parse("42 (a) b (c 9) S 7 42 42 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0 5 0 0").unwrap();
        assert_eq!((stat.parent, stat.own, stat.reaped), (7, 33, 77));
    }

    #[test]
    fn shared_memory_counts_once() {
        let one = |anonymous| Memory::parse(&format!("RssAnon:\t{anonymous} kB\nRssFile:\t10 kB\nRssShmem:\t100 kB\n"));
        assert_eq!(Memory::together([one(5), one(6)].into_iter()), 121.0);
    }

    #[test]
    fn this_process_is_found_and_uses_memory() {
        let usage = Processes::read().own_usage().unwrap();
        assert!(usage.rss_mib > 0.5, "{usage:?}");
        assert!(memory_gib().unwrap() > 0.1);
    }

    #[test]
    fn a_restart_does_not_lose_the_time_before_it() {
        let mut meter = Meter::default();
        assert_eq!(meter.advance(3.0), 3.0);
        assert_eq!(meter.advance(0.5), 3.5);
        assert_eq!(meter.advance(1.0), 4.0);
    }
}
