//! A file system of a few MiB, really full when it is full.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SIZE: &str = "size=48m";
/// What is written at a time, until no more fits.
const PIECE: usize = 64 << 10;

/// Mounted until it is dropped.
pub(crate) struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// An empty one that belongs to whom `like` belongs to. Panics where the system refuses the mount: without it there
    /// is no full disk to test.
    pub(crate) fn mount(name: &str, like: &Path) -> Self {
        let mount = native::native_dir().join(format!("{name}-disk"));
        fs::create_dir_all(&mount).unwrap();
        // A run that was killed has left its own.
        let _absent = Command::new("umount").arg("--lazy").arg(&mount).output().unwrap();
        let mounting = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&mount).output().unwrap();
        assert!(
            mounting.status.success(),
            "this test mounts a small tmpfs and needs the right to: {}",
            said(&mounting)
        );
        let disk = Self { mount };
        fs::create_dir(disk.tablespace()).unwrap();
        let owner = fs::metadata(like).unwrap();
        chown(disk.tablespace(), Some(owner.uid()), Some(owner.gid())).unwrap();
        disk
    }

    /// An empty directory for a tablespace.
    pub(crate) fn tablespace(&self) -> PathBuf {
        self.mount.join("tablespace")
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        let full = loop {
            if let Err(error) = std::io::Write::write_all(&mut ballast, &[0; PIECE]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// Frees what was taken.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for SmallDisk {
    /// The server may still have files open there; the mount goes with the last of them.
    fn drop(&mut self) {
        let unmounting = Command::new("umount").arg("--lazy").arg(&self.mount).output().unwrap();
        if !std::thread::panicking() {
            assert!(unmounting.status.success(), "{}", said(&unmounting));
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
