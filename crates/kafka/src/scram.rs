//! SCRAM (RFC 5802, RFC 7677), the client's side, as a pure exchange of messages: who calls carries them.
//!
//! ```text
//!   ClientFirst ── n,,n=USER,r=NONCE ──▶   ◀── r=NONCE…,s=SALT,i=COUNT ── answer() ──▶ ClientFinal
//!   ClientFinal ── c=biws,r=NONCE…,p=PROOF ──▶   ◀── v=SIGNATURE ── verify() ──▶ both sides know the password
//! ```
//!
//! As Kafka does it: names and passwords are taken as the UTF-8 that they are (no SASLprep), without channel binding.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::sasl::Secret;

/// RFC 7677's and Kafka's least number of rounds: a server that asks for fewer wants to guess the password.
const ITERATIONS_MIN: u32 = 4_096;
/// Eight times Kafka's own limit: some 100 ms of work that a server may ask of us.
const ITERATIONS_MAX: u32 = 131_072;
/// "No channel binding" of the first message, in base64.
const CHANNEL_BINDING: &str = "c=biws";

/// The hash that a mechanism is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// Why an exchange ended without success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("its message does not follow SCRAM ({0})")]
    Malformed(&'static str),
    #[error("it asks for {0} rounds of hashing, {ITERATIONS_MIN} to {ITERATIONS_MAX} are allowed")]
    Iterations(String),
    #[error("it refuses us: {0}")]
    Refused(String),
    /// It has seen our proof and cannot show that it knows the password itself.
    #[error("its signature is wrong: it is not the broker that knows this user")]
    Signature,
}

/// The client's first message has been made.
pub(crate) struct ClientFirst<'a> {
    hash: Hash,
    password: &'a Secret,
    nonce: String,
    bare: String,
}

/// The client's proof has been made.
pub(crate) struct ClientFinal {
    message: String,
    server_key: hmac::Key,
    auth_message: String,
}

impl<'a> ClientFirst<'a> {
    /// `nonce`: printable, without commas, never used before.
    pub(crate) fn new(hash: Hash, username: &str, password: &'a Secret, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        Self { hash, password, nonce, bare }
    }

    /// What is sent first.
    pub(crate) fn message(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The proof that answers the server's first message.
    pub(crate) fn answer(self, server_first: &[u8]) -> Result<ClientFinal, Fault> {
        let server_first = text(server_first)?;
        let challenge = Challenge::parse(server_first, &self.nonce)?;
        let salted = self.hash.salted_password(self.password, &challenge);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let without_proof = format!("{CHANNEL_BINDING},r={}", challenge.nonce);
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let signing_key = hmac::Key::new(self.hash.hmac(), stored_key.as_ref());
        let signature = hmac::sign(&signing_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let server_key = hmac::Key::new(self.hash.hmac(), hmac::sign(&salted, b"Server Key").as_ref());
        Ok(ClientFinal { message: format!("{without_proof},p={}", BASE64.encode(proof)), server_key, auth_message })
    }
}

impl ClientFinal {
    /// What is sent second.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Checks that the server knows the password as well.
    pub(crate) fn verify(self, server_final: &[u8]) -> Result<(), Fault> {
        let first = text(server_final)?.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(Fault::Refused(error.to_owned()));
        }
        let signature = first.strip_prefix("v=").ok_or(Fault::Malformed("no signature"))?;
        let signature = BASE64.decode(signature).map_err(|_| Fault::Malformed("a signature that is no base64"))?;
        // In constant time.
        hmac::verify(&self.server_key, self.auth_message.as_bytes(), &signature).map_err(|_| Fault::Signature)
    }
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn salted_password(self, password: &Secret, challenge: &Challenge<'_>) -> hmac::Key {
        let mut salted = vec![0; self.digest().output_len()];
        let password = password.reveal().as_bytes();
        pbkdf2::derive(self.pbkdf2(), challenge.iterations, &challenge.salt, password, &mut salted);
        hmac::Key::new(self.hmac(), &salted)
    }
}

/// The server's first message.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> Challenge<'a> {
    fn parse(message: &'a str, our_nonce: &str) -> Result<Self, Fault> {
        let mut attributes = message.split(',');
        let mut next = |name: &str| attributes.next().and_then(|attribute| attribute.strip_prefix(name));
        let nonce = next("r=").ok_or(Fault::Malformed("no nonce"))?;
        if nonce.len() <= our_nonce.len() || !nonce.starts_with(our_nonce) {
            return Err(Fault::Malformed("a nonce that is not ours"));
        }
        let salt = next("s=").and_then(|salt| BASE64.decode(salt).ok()).filter(|salt| !salt.is_empty());
        let salt = salt.ok_or(Fault::Malformed("no salt"))?;
        let iterations = next("i=").ok_or(Fault::Malformed("no iteration count"))?;
        let allowed = |count: &u32| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count);
        let count = iterations.parse().ok().filter(allowed).and_then(NonZeroU32::new);
        Ok(Self { nonce, salt, iterations: count.ok_or_else(|| Fault::Iterations(iterations.to_owned()))? })
    }
}

fn text(message: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(message).map_err(|_| Fault::Malformed("no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn first<'a>(hash: Hash, username: &str, password: &'a Secret) -> ClientFirst<'a> {
        ClientFirst::new(hash, username, password, NONCE.to_owned())
    }

    fn fault_of(server_first: &str) -> Fault {
        let password = Secret::new("pencil");
        first(Hash::Sha256, "user", &password).answer(server_first.as_bytes()).err().unwrap()
    }

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn sha_256_is_that_of_the_rfc() {
        let password = Secret::new("pencil");
        let first = first(Hash::Sha256, "user", &password);
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = first.answer(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            last.message(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(last.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    /// There is no RFC with an exchange for SHA-512: these were computed from RFC 5802's formulas with OpenSSL's functions.
    #[test]
    fn sha_512_equals_another_implementation() {
        let cases = [
            (
                "user",
                "pencil",
                SERVER_FIRST.to_owned(),
                "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
                "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
            ),
            (
                "na,me=",
                "pässwörd",
                SERVER_FIRST.replace("4096", "8192"),
                "ak6LkAu66YWZYxvneJxwcSnGJROZ7YzsSN+XYH8quA4TikAud2T21WBvTC0KbXU4q9nt4JFZ87qrlut/R+GWNA==",
                "v=CPEr5UF7w8pRyiulqzZdIkiPNcDrIIwhPFG7Sp98B1KnBegCPuHzBHEqSiqHhlZupdCLjqjm7fhP3ymqi+Icag==",
            ),
        ];
        for (username, password, server_first, proof, server_final) in cases {
            let password = Secret::new(password);
            let last = first(Hash::Sha512, username, &password).answer(server_first.as_bytes()).unwrap();
            assert_eq!(last.message().rsplit_once(",p=").unwrap().1, proof);
            assert_eq!(last.verify(server_final.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_attribute() {
        let password = Secret::new("p");
        assert_eq!(first(Hash::Sha256, "a,r=b", &password).message(), "n,,n=a=2Cr=3Db,r=rOprNGfwEbeRWgbNEkqO");
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let password = Secret::new("pencil");
        let answer = || first(Hash::Sha256, "user", &password).answer(SERVER_FIRST.as_bytes()).unwrap();
        let forged = BASE64.encode([0; 32]);
        assert_eq!(answer().verify(format!("v={forged}").as_bytes()), Err(Fault::Signature));
        assert_eq!(answer().verify(b"v="), Err(Fault::Signature));
        assert!(matches!(answer().verify(b""), Err(Fault::Malformed(_))));
        assert_eq!(answer().verify(b"e=unknown-user"), Err(Fault::Refused("unknown-user".to_owned())));
    }

    #[test]
    fn a_challenge_that_is_wrong_or_too_cheap_is_not_answered() {
        let replayed = SERVER_FIRST.replace("rOpr", "xOpr");
        let unchanged = "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        for malformed in [&replayed, unchanged, "", "m=x,r=y", "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096"] {
            assert!(matches!(fault_of(malformed), Fault::Malformed(_)), "{malformed}");
        }
        for count in ["1", "4095", "131073", "4294967296", "-1", "many", ""] {
            let challenge = SERVER_FIRST.replace("4096", count);
            assert_eq!(fault_of(&challenge), Fault::Iterations(count.to_owned()));
        }
    }
}
