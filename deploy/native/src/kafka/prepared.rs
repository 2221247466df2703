//! What is prepared once on a machine so that every later start of a broker is cheaper: the first metadata of a cluster
//! (saves a run of the storage tool) and the JVM's archive of Kafka's classes (halves the CPU time of a start: 3.4 s to
//! 1.9 s measured). Without them everything works, slower.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Kafka, KafkaOptions};
use crate::ports::Wish;
use crate::stack::Home;
use crate::tools::Tools;
use crate::{Error, paths};

/// The first records of a cluster's metadata, as the storage tool writes them; they name no node and no cluster.
pub(super) const CHECKPOINT: &str = "bootstrap.checkpoint";

/// What there is of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    pub(super) checkpoint: Option<PathBuf>,
    pub(super) jvm_flags: Vec<String>,
}

impl Prepared {
    /// Prepares it now if that has not been done; nothing while another process does, or when it fails.
    pub(super) fn ensure(tools: &Tools) -> Self {
        let dir = paths::native_dir().join("kafka");
        let archive = dir.join(format!("classes-{}.jsa", tools.java_version));
        if !is_fresh(&archive, &tools.kafka_lib) && make_once(tools, &dir, &archive).is_none() {
            return Self::default();
        }
        // Quiet: an archive that does not fit is passed over, and the log is for the broker.
        let jvm_flags = vec![format!("-XX:SharedArchiveFile={}", archive.display()), "-Xlog:cds=off".to_owned()];
        Self { checkpoint: Some(dir.join(CHECKPOINT)).filter(|path| path.exists()), jvm_flags }
    }
}

/// Jars that were fetched anew do not match the archive any more.
fn is_fresh(archive: &Path, jars: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified(archive).is_some_and(|made| modified(jars).is_some_and(|fetched| fetched <= made))
}

fn make_once(tools: &Tools, dir: &Path, archive: &Path) -> Option<()> {
    let lock = File::options().create(true).append(true).open(dir.join("prepare.lock")).ok()?;
    lock.try_lock().ok()?;
    // Another process may have finished it between our look and our lock.
    if is_fresh(archive, &tools.kafka_lib) { Some(()) } else { make(tools, dir, archive).ok() }
}

/// A broker runs for it once. The JVM writes the archive as it ends in good order; only a whole one gets its name.
fn make(tools: &Tools, dir: &Path, archive: &Path) -> Result<(), Error> {
    let home = Home::claim(&dir.join("training"))?;
    let fresh = archive.with_extension("new");
    let _none = fs::remove_file(&fresh);
    let flags = vec![format!("-XX:ArchiveClassesAtExit={}", fresh.display()), "-Xlog:cds=off".to_owned()];
    let training = Prepared { checkpoint: None, jvm_flags: flags };
    let kafka = Kafka::start_with(&home, tools, &KafkaOptions::single(), Wish::Any, &training)?;
    copy(&home.dir().join("kafka-1/data").join(CHECKPOINT), &dir.join(CHECKPOINT))?;
    kafka.stop();
    home.remove_data();
    fs::rename(&fresh, archive).map_err(Error::io("write", archive))
}

/// Beside its place, then there as a whole: others may be reading.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh).and_then(|_| fs::rename(&fresh, to)).map_err(Error::io("write", to))
}
