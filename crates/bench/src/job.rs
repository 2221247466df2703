//! What a client is told to do, and what it tells when it is done: lines of `name=value`, so that a Java program of one
//! file can speak them too.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Read `records` records from the beginning of the topic and look at each, twice; the second time is measured.
    Fetch,
    /// Write `rate` records a second and wait for the acknowledgement of each, for `warm`, then for `measured`.
    Produce,
    /// Read what comes in as a member of a group and commit once a second, for `warm`, then for `measured`.
    Consume,
}

impl Role {
    const NAMES: [(Self, &str); 3] = [(Self::Fetch, "fetch"), (Self::Produce, "produce"), (Self::Consume, "consume")];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

/// A client's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// What to do.
    pub(crate) role: Role,
    /// `host:port` of the broker.
    pub(crate) bootstrap: String,
    /// Where.
    pub(crate) topic: String,
    /// Its partitions.
    pub(crate) partitions: i32,
    /// Records to read.
    pub(crate) records: u64,
    /// Records to write each second.
    pub(crate) rate: u64,
    /// Time for connections, caches and compilers before anything is measured.
    pub(crate) warm: Duration,
    /// Time that is measured.
    pub(crate) measured: Duration,
    /// How long a record may wait for company.
    pub(crate) linger: Duration,
}

impl Job {
    /// As arguments.
    pub(crate) fn args(&self) -> Vec<String> {
        vec![
            format!("role={}", self.role.name()),
            format!("bootstrap={}", self.bootstrap),
            format!("topic={}", self.topic),
            format!("partitions={}", self.partitions),
            format!("records={}", self.records),
            format!("rate={}", self.rate),
            format!("warm_ms={}", self.warm.as_millis()),
            format!("measured_ms={}", self.measured.as_millis()),
            format!("linger_ms={}", self.linger.as_millis()),
        ]
    }

    /// From arguments.
    pub(crate) fn parse(args: &[String]) -> Result<Self, Error> {
        let fields = Fields::parse(args.iter().map(String::as_str));
        let role = fields.text("role")?;
        let role = Role::NAMES.iter().find(|(_, name)| *name == role).map(|(role, _)| *role);
        let ms = |name| fields.number(name).map(Duration::from_millis);
        Ok(Self {
            role: role.ok_or_else(|| Error::Client("there is no such role".to_owned()))?,
            bootstrap: fields.text("bootstrap")?.to_owned(),
            topic: fields.text("topic")?.to_owned(),
            partitions: fields.number("partitions")?,
            records: fields.number("records")?,
            rate: fields.number("rate")?,
            warm: ms("warm_ms")?,
            measured: ms("measured_ms")?,
            linger: ms("linger_ms")?,
        })
    }
}

/// What a client used for the work that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Records read, or acknowledged.
    pub(crate) records: f64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// CPU of its process.
    pub(crate) cpu_s: f64,
    /// The most memory that its process had, since it was started.
    pub(crate) peak_rss_mib: f64,
}

impl Report {
    /// As a line.
    pub(crate) fn line(&self) -> String {
        let Self { records, seconds, cpu_s, peak_rss_mib } = self;
        format!("records={records} seconds={seconds} cpu_s={cpu_s} peak_rss_mib={peak_rss_mib}")
    }

    /// From a line.
    pub(crate) fn parse(line: &str) -> Result<Self, Error> {
        let fields = Fields::parse(line.split_ascii_whitespace());
        Ok(Self {
            records: fields.number("records")?,
            seconds: fields.number("seconds")?,
            cpu_s: fields.number("cpu_s")?,
            peak_rss_mib: fields.number("peak_rss_mib")?,
        })
    }
}

/// `name=value`, some of them.
pub(crate) struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    pub(crate) fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        Self(words.filter_map(|word| word.split_once('=')).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }

    fn text(&self, name: &str) -> Result<&'a str, Error> {
        self.0.get(name).copied().ok_or_else(|| Error::Client(format!("{name} is missing")))
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T, Error> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Error::Client(format!("{name}={text} is no number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let job = Job {
            role: Role::Produce,
            bootstrap: "127.0.0.1:9092".to_owned(),
            topic: "t".to_owned(),
            partitions: 48,
            records: 7,
            rate: 50_000,
            warm: Duration::from_secs(3),
            measured: Duration::from_secs(20),
            linger: Duration::from_millis(10),
        };
        assert_eq!(Job::parse(&job.args()).unwrap(), job);
    }

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let report = Report { records: 1e6, seconds: 0.75, cpu_s: 0.5, peak_rss_mib: 31.25 };
        assert_eq!(Report::parse(&report.line()).unwrap(), report);
        assert!(Report::parse("records=1 seconds=x").is_err());
    }
}
