//! Kafka's real Java client in a test: the programs of `tests/java`, started, listened to, and gone with the test.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use kafka::{PartitionId, TopicPartition};
use tokio::sync::watch;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java");
/// They live for seconds beside a broker and our own client, on two cores.
const JVM_FLAGS: [&str; 5] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Xmx128m"];
/// Far more than a JVM needs to start, or a client to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The compiled programs.
pub(crate) struct Java {
    dir: PathBuf,
    java: PathBuf,
    /// Our classes, then Kafka's.
    class_path: String,
}

impl Java {
    /// Compiles the programs into `dir`, which also takes what they log.
    pub(crate) fn compile(dir: &Path) -> Self {
        let tools = native::ensure_tools().expect("a JDK and Kafka");
        let classes = dir.join("classes");
        std::fs::create_dir_all(&classes).expect("a directory");
        let jars = format!("{}/*", tools.kafka_lib.display());
        let sources = ["Golden.java", "Member.java", "Produce.java"].map(|name| Path::new(SOURCES).join(name));
        let compiler = Command::new(&tools.javac)
            .args(["-J-XX:TieredStopAtLevel=1", "-J-XX:-UsePerfData", "-proc:none", "-cp", &jars, "-d"])
            .arg(&classes)
            .args(sources)
            .output()
            .expect("a compiler");
        assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        let class_path = format!("{}:{jars}", classes.display());
        Self { dir: dir.to_owned(), java: tools.java, class_path }
    }

    /// Starts the program `class`; `name` is that of its log.
    pub(crate) fn start<A: AsRef<str>>(&self, class: &str, name: &str, args: &[A]) -> Program {
        let log = File::create(self.dir.join(format!("{name}.log"))).expect("a log");
        let mut child = Command::new(&self.java)
            .args(JVM_FLAGS)
            .arg(format!("-Djava.io.tmpdir={}", self.dir.display()))
            .arg(format!("-Dlog4j2.configurationFile={SOURCES}/log4j2.xml"))
            .args(["-cp", &self.class_path, class])
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("Java");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (told, lines) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                told.send_modify(|lines| lines.push(Line::parse(&line)));
            }
        });
        Program { name: name.to_owned(), child, stdin, lines }
    }

    /// A member of a group, see `Member.java`. `settings` are Java's, such as `group.protocol=consumer`.
    pub(crate) fn member<A: AsRef<str>>(&self, name: &str, topic: &str, settings: &[A]) -> Program {
        let args: Vec<&str> = std::iter::once(topic).chain(settings.iter().map(AsRef::as_ref)).collect();
        self.start("Member", name, &args)
    }

    /// A program that produces what it is told to, see `Produce.java`.
    pub(crate) fn produce(&self, name: &str, bootstrap: &str) -> Program {
        self.start("Produce", name, &[format!("bootstrap.servers={bootstrap}")])
    }
}

/// One line that a program has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When, ms since the epoch.
    pub(crate) at_ms: i64,
    /// What, such as `assigned`.
    pub(crate) word: String,
    /// The rest of the line.
    pub(crate) details: String,
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut words = text.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        let first = next();
        let at_ms = first.parse().unwrap_or_else(|_| panic!("not a line of ours: {text}"));
        Self { at_ms, word: next(), details: next() }
    }

    /// The details of `assigned`, `revoked` and `lost`.
    pub(crate) fn partitions(&self) -> BTreeSet<TopicPartition> {
        self.details.split(',').filter(|name| !name.is_empty()).map(partition).collect()
    }

    /// The details of `position` and `read`: a partition and its offsets; those of `sent` as well.
    pub(crate) fn offsets(&self) -> (TopicPartition, Vec<i64>) {
        let mut words = self.details.split(' ');
        let partition = partition(words.next().expect("a partition"));
        (partition, words.map(|word| word.parse().expect("an offset")).collect())
    }
}

fn partition(name: &str) -> TopicPartition {
    let (topic, number) = name.rsplit_once('-').expect("TOPIC-PARTITION");
    TopicPartition::new(topic, PartitionId(number.parse().expect("a number")))
}

/// A running program. Dropping it kills it; if this process dies first, it ends with its standard input.
pub(crate) struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: watch::Receiver<Vec<Line>>,
}

impl Program {
    /// Everything that it has said so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.borrow().clone()
    }

    /// Waits until `met` holds for everything that it has said, and returns that.
    pub(crate) async fn until(&mut self, what: &str, met: impl FnMut(&Vec<Line>) -> bool) -> Vec<Line> {
        let waited = tokio::time::timeout(PATIENCE, self.lines.wait_for(met)).await;
        let outcome = waited.map(|outcome| outcome.map(|lines| lines.clone()));
        match outcome {
            Ok(Ok(lines)) => lines,
            Ok(Err(_)) => panic!("{} ended before {what}: {:?}; see its log", self.name, self.lines()),
            Err(_) => panic!("{}: {what} did not come in {PATIENCE:?}: {:?}", self.name, self.lines()),
        }
    }

    /// What a member owns, by what it has said.
    pub(crate) fn owned(&self) -> BTreeSet<TopicPartition> {
        owned(&self.lines.borrow())
    }

    /// Waits until a member owns what `met` asks for.
    pub(crate) async fn owns(&mut self, what: &str, mut met: impl FnMut(&BTreeSet<TopicPartition>) -> bool) {
        self.until(what, |lines| met(&owned(lines))).await;
    }

    /// Gives it a line to read.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} does not listen: {error}", self.name));
    }

    /// Gives it a command and waits for the one line that answers it.
    pub(crate) async fn command(&mut self, line: &str) -> Line {
        let before = self.lines.borrow().len();
        self.tell(line);
        let lines = self.until(line, |lines| lines.len() > before).await;
        lines[before].clone()
    }

    /// Makes a member leave its group, and waits for its end; returns everything that it has said.
    pub(crate) async fn close(mut self) -> Vec<Line> {
        self.tell("close");
        self.until("its farewell", |lines| lines.last().is_some_and(|line| line.word == "closed")).await
    }

    /// Ends its input, waits for its end, and returns how it ended.
    pub(crate) async fn finish(mut self) -> (ExitStatus, Vec<Line>) {
        drop(self.stdin.take());
        let ended = async { while self.lines.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{} does not end", self.name));
        (self.child.wait().expect("its status"), self.lines())
    }

    /// Its process number, for signals.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn owned(lines: &[Line]) -> BTreeSet<TopicPartition> {
    let mut owned = BTreeSet::new();
    for line in lines {
        match line.word.as_str() {
            "assigned" => owned.extend(line.partitions()),
            "revoked" | "lost" => owned.retain(|partition| !line.partitions().contains(partition)),
            _ => {}
        }
    }
    owned
}
