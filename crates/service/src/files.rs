//! Files that flags name: certificates, keys and passwords, each read whole or refused by its flag's name.

use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;

use kafka::Secret;
use tls::{Authorities, CertificateChain, PrivateKey, Tls};

use crate::Usage;

/// No certificate, key or password comes near it.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A flag and the file that it was given, if any.
pub type FileFlag<'a> = (&'static str, Option<&'a Path>);

/// The three flags by which a client is told whom it trusts and who it is.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// Certificates of the authorities by which servers are trusted; without them those of the system.
    pub ca: FileFlag<'a>,
    /// Our own certificate; with `key`.
    pub certificate: FileFlag<'a>,
    /// Its private key.
    pub key: FileFlag<'a>,
}

impl<'a> TlsFiles<'a> {
    /// The first of the flags that is given.
    pub fn first(&self) -> Option<(&'static str, &'a Path)> {
        [self.ca, self.certificate, self.key].into_iter().find_map(|(flag, file)| Some((flag, file?)))
    }

    /// Reads what is given. A fault of no file is blamed on whatever asked for TLS: `blame` gives that its name.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, half of a pair, or a key of another certificate.
    pub fn load(&self, blame: impl Fn(String) -> Usage) -> Result<Tls, Usage> {
        let trusted = match self.ca {
            (flag, Some(file)) => load(flag, file, Authorities::from_pem)?,
            (flag, None) => Authorities::of_system().map_err(|error| blame(format!("{error} by {flag}")))?,
        };
        let Some((certificate, key)) = self.pair()? else {
            return Tls::new(trusted, None).map_err(|error| blame(error.to_string()));
        };
        let identity = (
            load(self.certificate.0, certificate, CertificateChain::from_pem)?,
            load(self.key.0, key, PrivateKey::from_pem)?,
        );
        Tls::new(trusted, Some(identity)).map_err(|error| Usage::new(self.key.0, key.display(), error.to_string()))
    }

    /// Certificate and key, both or none.
    fn pair(&self) -> Result<Option<(&'a Path, &'a Path)>, Usage> {
        let alone = |flag: &str, file: &Path, what: &str, other: &str| {
            Err(Usage::new(flag, file.display(), format!("is of no use without its {what}; give {other} as well")))
        };
        match (self.certificate, self.key) {
            ((_, None), (_, None)) => Ok(None),
            ((_, Some(certificate)), (_, Some(key))) => Ok(Some((certificate, key))),
            ((flag, Some(certificate)), (other, None)) => alone(flag, certificate, "key", other),
            ((other, None), (flag, Some(key))) => alone(flag, key, "certificate", other),
        }
    }
}

/// The password in the first line of a file.
///
/// # Errors
/// The file cannot be read, or its first line is empty or no text.
pub fn password_in_first_line(flag: &str, file: &Path) -> Result<Secret, Usage> {
    let bytes = read(flag, file)?;
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    password_of(flag, &file.display(), line)
}

/// A file that an editor or `echo` wrote ends in a line break that is not of the password.
pub(crate) fn password_of(from: &str, value: &dyn Display, bytes: &[u8]) -> Result<Secret, Usage> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Usage::new(from, value, "the password in it is no UTF-8 text"))?;
    let password = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() || password.contains(['\0', '\n']) {
        return Err(Usage::new(from, value, "give one line with the password"));
    }
    Ok(Secret::new(password))
}

fn load<T, E: Display>(flag: &str, file: &Path, parse: impl Fn(&[u8]) -> Result<T, E>) -> Result<T, Usage> {
    parse(&read(flag, file)?).map_err(|error| Usage::new(flag, file.display(), error.to_string()))
}

pub(crate) fn read(flag: &str, file: &Path) -> Result<Vec<u8>, Usage> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes));
    match opened {
        Ok(_) => Ok(bytes),
        Err(error) => {
            Err(Usage::new(flag, file.display(), format!("cannot be read ({error}); give a file that we may read")))
        }
    }
}
