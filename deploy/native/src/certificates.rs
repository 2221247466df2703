//! Certificates for brokers and clients of a test, by an authority that nobody else trusts.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate alone: its authority is the root.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Today.
    Now,
    /// Not any more.
    Expired,
}

impl Authority {
    /// A new one of this name.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[], name, Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let certificate = params.self_signed(&key).expect("a certificate that is complete can be signed");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, as PEM: what those who trust it are given.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these host names and addresses; the first is its subject's name (CN) as well.
    ///
    /// # Panics
    /// When a name cannot stand in a certificate.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_valid(Validity::Now, names)
    }

    /// The same, good or not.
    ///
    /// # Panics
    /// When a name cannot stand in a certificate.
    pub fn issue_valid(&self, validity: Validity, names: &[&str]) -> Issued {
        let key = key();
        let params = params(names, names.first().copied().unwrap_or_default(), validity);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate that is complete can be signed");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn params(names: &[&str], common_name: &str, validity: Validity) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names that can stand in a certificate");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = match validity {
        Validity::Now => date_time_ymd(2100, 1, 1),
        Validity::Expired => date_time_ymd(2021, 1, 1),
    };
    params
}
