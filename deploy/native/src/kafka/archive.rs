//! The JVM's archive of Kafka's classes: made once on a machine by a broker that is started for it, it halves the CPU
//! time of every later start (3.4 s to 1.9 s measured). Without it everything works, slower.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Kafka, KafkaOptions};
use crate::ports::Wish;
use crate::stack::Home;
use crate::tools::Tools;
use crate::{Error, paths};

/// The archive's file, made now if it is not there yet; none while another process makes it, or when that fails.
pub(super) fn ensure(tools: &Tools) -> Option<PathBuf> {
    let dir = paths::native_dir().join("kafka");
    let archive = dir.join(format!("classes-{}.jsa", tools.java_version));
    if is_fresh(&archive, &tools.kafka_lib) {
        return Some(archive);
    }
    let lock = File::options().create(true).append(true).open(dir.join("classes.lock")).ok()?;
    lock.try_lock().ok()?;
    make(tools, &archive).ok()?;
    archive.exists().then_some(archive)
}

pub(super) fn flags_to_use(archive: &Path) -> Vec<String> {
    // Quiet: an archive that does not fit is passed over, and the log is for the broker.
    vec![format!("-XX:SharedArchiveFile={}", archive.display()), "-Xlog:cds=off".to_owned()]
}

/// Jars that were fetched anew do not match the archive any more.
fn is_fresh(archive: &Path, jars: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified(archive).is_some_and(|made| modified(jars).is_some_and(|fetched| fetched <= made))
}

/// The JVM writes the archive as it ends in good order; only a whole one gets its name.
fn make(tools: &Tools, archive: &Path) -> Result<(), Error> {
    let home = Home::claim(&paths::native_dir().join("kafka/training"))?;
    let fresh = archive.with_extension("new");
    let _none = fs::remove_file(&fresh);
    let flags = [format!("-XX:ArchiveClassesAtExit={}", fresh.display()), "-Xlog:cds=off".to_owned()];
    Kafka::start_with(&home, tools, &KafkaOptions::single(), Wish::Any, &flags)?.stop();
    fs::rename(&fresh, archive).map_err(Error::io("write", archive))
}
