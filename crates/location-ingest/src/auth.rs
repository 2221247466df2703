//! Tokens: who shows none, or an unknown one, is not let in; some are good for some drivers only.
//!
//! The file holds hashes, so that whoever reads it cannot send. What a client shows is hashed first, and the hash is
//! compared in constant time; neither is ever logged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::header::{self, HeaderMap};
use ring::digest::{SHA256, digest};
use tracing::{info, warn};

use crate::error::Error;
use crate::problem::Problem;

const FLAG: &str = "--auth-tokens";
const HASH_BYTES: usize = 32;
/// Hashes are looked up by this much of them, which tells nothing of the token, and compared as a whole.
const KEY_BYTES: usize = 8;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Drivers whose id begins with this; empty for all.
    prefix: Box<str>,
}

impl Grant {
    pub(crate) fn covers(&self, driver: &str) -> bool {
        driver.starts_with(&*self.prefix)
    }
}

type Table = HashMap<[u8; KEY_BYTES], Vec<([u8; HASH_BYTES], Arc<Grant>)>>;

/// The known tokens; read again when the file changes.
#[derive(Debug)]
pub(crate) struct Tokens {
    file: PathBuf,
    table: RwLock<Arc<Table>>,
}

impl Tokens {
    pub(crate) fn load(file: &Path) -> Result<Self, Error> {
        let table =
            read(file).map_err(|remedy| Error::File { flag: FLAG, file: file.display().to_string(), remedy })?;
        Ok(Self { file: file.to_owned(), table: RwLock::new(Arc::new(table)) })
    }

    /// Follows the file for ever. One that cannot be read leaves the tokens as they are.
    pub(crate) async fn follow(&self) {
        crate::reload::watch(vec![self.file.clone()], || match read(&self.file) {
            Ok(table) => {
                info!(tokens = table.values().map(Vec::len).sum::<usize>(), "tokens read again");
                *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
            }
            Err(error) => warn!("{FLAG} {}: {error}; the tokens of before stay", self.file.display()),
        })
        .await;
    }

    /// What the shown token is good for.
    pub(crate) fn check(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Grant>, Problem> {
        let token = shown(headers, query).ok_or(Problem::MissingToken)?;
        let hash = hash(&token);
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let candidates = table.get(&key(&hash)).map(Vec::as_slice).unwrap_or_default();
        let found = candidates.iter().find(|(known, _)| is_equal(known, &hash));
        found.map(|(_, grant)| Arc::clone(grant)).ok_or(Problem::InvalidToken)
    }
}

/// A bearer token; the password of basic authentication, which is what OwnTracks can send; or `token` in the query, since
/// OsmAnd cannot send headers at all.
fn shown(headers: &HeaderMap, query: Option<&str>) -> Option<Vec<u8>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(rest.as_bytes().to_vec()),
            "basic" => {
                let pair = crate::formats::base64(rest)?;
                let colon = pair.iter().position(|byte| *byte == b':')?;
                pair.get(colon + 1..).map(<[u8]>::to_vec)
            }
            _ => None,
        };
    }
    let parameters = crate::formats::parameters(query?.as_bytes());
    parameters.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token.into_bytes())
}

fn hash(token: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

fn key(hash: &[u8; HASH_BYTES]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&hash[..KEY_BYTES]);
    key
}

/// Looks at every byte whatever the first ones say.
fn is_equal(one: &[u8; HASH_BYTES], other: &[u8; HASH_BYTES]) -> bool {
    let different = one.iter().zip(other).fold(0, |different, (one, other)| different | (one ^ other));
    std::hint::black_box(different) == 0
}

fn read(file: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot be read ({error}); give a file that we may read"))?;
    let mut table = Table::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (hash, prefix) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        // The line itself may be a token that somebody forgot to hash.
        let hash = from_hex(hash)
            .ok_or_else(|| format!("line {} must begin with a SHA-256 of 64 hexadecimal digits", number + 1))?;
        let grant = Arc::new(Grant { prefix: prefix.trim().into() });
        table.entry(key(&hash)).or_default().push((hash, grant));
    }
    Ok(table)
}

fn from_hex(text: &str) -> Option<[u8; HASH_BYTES]> {
    if text.len() != 2 * HASH_BYTES {
        return None;
    }
    let mut hash = [0; HASH_BYTES];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// `printf secret | sha256sum`
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn tokens(content: &str) -> Result<Tokens, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, content).unwrap();
        Tokens::load(&file)
    }

    fn with(value: &'static str) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_bound_to_a_prefix() {
        let tokens = tokens(&format!("# fleet\n\n{SECRET} taxi-\n")).unwrap();
        let grant = tokens.check(&with("Bearer secret"), None).unwrap();
        assert!(grant.covers("taxi-1") && !grant.covers("bus-1"));
        assert_eq!(tokens.check(&with("Basic dXNlcjpzZWNyZXQ="), None).unwrap(), grant);
        assert_eq!(tokens.check(&HeaderMap::new(), Some("id=1&token=secret")).unwrap(), grant);
        for wrong in ["Bearer Secret", "Bearer ", "bearer secret2"] {
            assert_eq!(tokens.check(&with(wrong), None), Err(Problem::InvalidToken), "{wrong}");
        }
        for none in ["secret", "Digest x", "Basic !!"] {
            assert_eq!(tokens.check(&with(none), None), Err(Problem::MissingToken), "{none}");
        }
        assert_eq!(tokens.check(&HeaderMap::new(), None), Err(Problem::MissingToken));
    }

    #[test]
    fn a_token_that_was_not_hashed_is_not_repeated() {
        let error = tokens("secret").unwrap_err().to_string();
        assert!(error.contains("line 1 must begin with a SHA-256") && !error.contains("secret"), "{error}");
    }
}
