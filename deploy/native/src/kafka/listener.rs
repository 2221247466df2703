//! Listeners beside a broker's plain one: what TLS, SASL and their settings look like in server.properties.

/// Kafka's security protocols but PLAINTEXT, which every broker has anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS.
    Ssl,
    /// User and password.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// One more port of every broker, for clients that come in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub(super) name: String,
    /// By which clients find it; it leads to this machine.
    pub(super) host: String,
    protocol: Protocol,
    settings: Vec<(String, String)>,
}

impl Listener {
    /// `name`: capital letters and underscores, as in `SASL_TLS`; it is reached as `localhost`.
    pub fn new(name: &str, protocol: Protocol) -> Self {
        Self { name: name.to_owned(), host: "localhost".to_owned(), protocol, settings: Vec::new() }
    }

    /// The broker's certificate and key, as PEM.
    #[must_use]
    pub fn certificate(self, certificate: &str, key: &str) -> Self {
        self.set("ssl.keystore.type", "PEM")
            .set("ssl.keystore.certificate.chain", certificate)
            .set("ssl.keystore.key", key)
    }

    /// Clients must have a certificate of this authority (PEM).
    #[must_use]
    pub fn require_certificate_of(self, authority: &str) -> Self {
        self.set("ssl.client.auth", "required")
            .set("ssl.truststore.type", "PEM")
            .set("ssl.truststore.certificates", authority)
    }

    /// A setting of this listener alone.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `NAME:PROTOCOL`, for the map of listeners.
    pub(super) fn mapping(&self) -> String {
        format!("{}:{}", self.name, self.protocol.name())
    }

    /// Everything of it for server.properties.
    pub(super) fn rendered(&self, users: &[(String, String)]) -> Vec<(String, String)> {
        let prefix = format!("listener.name.{}.", self.name.to_lowercase());
        let sasl = if self.protocol.has_sasl() { sasl(users) } else { Vec::new() };
        sasl.into_iter().chain(self.settings.clone()).map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}

/// PLAIN knows its users by its own settings, SCRAM by the cluster's metadata.
fn sasl(users: &[(String, String)]) -> Vec<(String, String)> {
    let plain: String = users.iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
    let plain = format!("org.apache.kafka.common.security.plain.PlainLoginModule required{plain};");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    [
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        ("plain.sasl.jaas.config", &plain),
        ("scram-sha-256.sasl.jaas.config", scram),
        ("scram-sha-512.sasl.jaas.config", scram),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// What the storage tool is told of users, so that SCRAM knows them from the first moment on.
pub(super) fn scram_arguments(users: &[(String, String)]) -> Vec<String> {
    let of = |(name, password): &(String, String)| {
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .map(|mechanism| ["--add-scram".to_owned(), format!("{mechanism}=[name={name},password={password}]")])
    };
    users.iter().flat_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listeners_settings_bear_its_name() {
        let listener = Listener::new("SASL_TLS", Protocol::SaslSsl).set("x", "1");
        assert_eq!(listener.mapping(), "SASL_TLS:SASL_SSL");
        let rendered = listener.rendered(&[("ann".to_owned(), "pw".to_owned())]);
        assert_eq!(rendered.last().unwrap(), &("listener.name.sasl_tls.x".to_owned(), "1".to_owned()));
        assert!(
            rendered
                .iter()
                .any(|(name, value)| name.ends_with("plain.sasl.jaas.config") && value.contains("user_ann=\"pw\""))
        );
        let tls = Listener::new("TLS", Protocol::Ssl);
        assert!(tls.rendered(&[("ann".to_owned(), "pw".to_owned())]).is_empty());
    }
}
