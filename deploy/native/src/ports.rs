//! Ports of 127.0.0.1 that stay a stack's own while its servers come and go.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::{Error, paths, random};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up): while a server is
/// down, no client's connection can come to sit on its port.
const FIRST: u16 = 15_000;
const END: u16 = 32_000;
/// Random draws from 17,000 ports: only a machine that uses nearly all of them gets here.
const MAX_DRAWS: usize = 1_000;

/// Which port a server would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Any that is free.
    Any,
    /// This one if it is free, else any.
    Rather(u16),
}

/// A port that no other stack of this checkout is given while this value lives. Nobody listens on it yet, so a
/// stranger may still take it: whoever starts a server on it tries again with another.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// With a lock on the byte of that number; the lock goes with the process, however it ends.
    _lease: File,
}

impl Port {
    /// Finds a free port.
    ///
    /// # Errors
    /// [`Error::NoFreePort`], or when the directory of the leases cannot be written.
    pub fn lease(wish: Wish) -> Result<Self, Error> {
        let dir = paths::native_dir();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let leases = dir.join("ports.lock");
        let wished = match wish {
            Wish::Any => None,
            Wish::Rather(number) => Some(number),
        };
        let draws = (0..MAX_DRAWS).map(|_| FIRST + random::below(END - FIRST));
        for number in wished.into_iter().chain(draws) {
            if let Some(port) = Self::try_lease(&leases, number)? {
                return Ok(port);
            }
        }
        Err(Error::NoFreePort { from: FIRST, to: END })
    }

    fn try_lease(leases: &Path, number: u16) -> Result<Option<Self>, Error> {
        let lease = File::options().create(true).append(true).open(leases).map_err(Error::io("create", leases))?;
        let is_ours = fcntl(&lease, FcntlArg::F_OFD_SETLK(&byte_lock(number))).is_ok();
        let is_free = is_ours && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(is_free.then_some(Self { number, _lease: lease }))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// One file stands for all ports, one byte for each; locks need no bytes to be there.
fn byte_lock(number: u16) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).expect("a lock type"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("an origin"),
        l_start: libc::off_t::from(number),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_port_is_not_given_twice() {
        let first = Port::lease(Wish::Any).unwrap();
        let second = Port::lease(Wish::Rather(first.number())).unwrap();
        assert_ne!(first.number(), second.number());
        let number = first.number();
        drop(first);
        assert_eq!(Port::lease(Wish::Rather(number)).unwrap().number(), number);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert_ne!(Port::lease(Wish::Rather(taken)).unwrap().number(), taken);
    }
}
