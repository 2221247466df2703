//! TLS to a real server: who is trusted, who is not, and what the one line says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ::service::ServiceError as _;
use native::Stack;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use timescale_writer::Error;

use crate::world::{self, TIMEOUT, connect, prepare, schema};

/// A server whose certificate is of `localhost`, and files of those who may have signed it.
struct Secured {
    stack: Stack,
    files: TempDir,
}

impl Secured {
    /// Where `name.pem` is.
    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(format!("{name}.pem"))
    }

    /// Reached as `localhost`, with further parameters.
    fn url(&self, parameters: &str) -> String {
        let url = self.stack.postgres.url();
        format!("{}?hostaddr=127.0.0.1&{parameters}", url.replace("127.0.0.1", "localhost"))
    }

    fn trusting(&self, mode: &str, roots: &str) -> String {
        self.url(&format!("sslmode={mode}&sslrootcert={}", self.file(roots).display()))
    }
}

/// An authority that signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, in the name of `names`, and of `common_name` in the subject.
    fn sign(&self, names: &[&str], common_name: &str) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// One server for all of these tests, set up in a runtime of its own.
static SERVER: LazyLock<Secured> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(secure())
    })
    .join()
    .unwrap()
});

async fn secure() -> Secured {
    let secured = Secured { stack: world::server("tls"), files: tempfile::tempdir().unwrap() };
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    fs::write(secured.file("authority"), &authority.certificate).unwrap();
    fs::write(secured.file("stranger"), &stranger.certificate).unwrap();
    let (certificate, key) = authority.sign(&["localhost"], "not this name");
    serve(&secured.stack, &certificate, &key, &authority.certificate).await;
    let (certificate, key) = authority.sign(&[], "driver");
    fs::write(secured.file("driver"), certificate).unwrap();
    fs::write(secured.file("driver-key"), key).unwrap();
    fs::set_permissions(secured.file("driver-key"), fs::Permissions::from_mode(0o600)).unwrap();
    secured
}

/// Has the server itself write its files: its key must be its own user's.
async fn serve(stack: &Stack, certificate: &str, key: &str, authority: &str) {
    let admin = connect(&stack.postgres.admin_url()).await;
    for (file, content) in [("server.crt", certificate), ("server.key", key), ("clients.crt", authority)] {
        let lines: Vec<_> = content.lines().map(|line| format!("('{line}')")).collect();
        let statement = format!("COPY (VALUES {}) TO PROGRAM 'umask 077; cat > {file}'", lines.join(","));
        admin.batch_execute(&statement).await.unwrap();
    }
    for setting in ["ssl = on", "ssl_ca_file = 'clients.crt'"] {
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    let before = admin.query_one("SELECT pg_conf_load_time()::text", &[]).await.unwrap().get::<_, String>(0);
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    world::until("the server has read its settings", async || {
        let fresh = connect(&stack.postgres.admin_url()).await;
        let row = fresh.query_one("SELECT pg_conf_load_time()::text, current_setting('ssl')", &[]).await.unwrap();
        row.get::<_, String>(0) != before && row.get::<_, String>(1) == "on"
    })
    .await;
}

/// Whether the writer's connections are encrypted; writes through one.
async fn is_encrypted(url: &str) -> bool {
    prepare(url, schema()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let sink = world::sink(url, TIMEOUT);
    pipeline::Sink::probe(&sink).await.unwrap();
    let client = connect(&SERVER.stack.postgres.admin_url()).await;
    let pool = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                WHERE application_name = $1";
    let name = url.rsplit_once("application_name=").unwrap().1;
    client.query_one(pool, &[&name]).await.unwrap().get(0)
}

async fn refusal(url: &str) -> String {
    let error = prepare(url, schema()).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)), "{url}: {error:?}");
    assert_eq!(error.exit_code(), 69);
    let line = error.to_string();
    assert!(line.starts_with("postgres localhost:") && !line.contains('\n'), "{line}");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_encrypts_as_it_promises() {
    for (number, (mode, encrypted)) in
        [("disable", false), ("allow", false), ("prefer", true), ("require", true)].into_iter().enumerate()
    {
        let url = SERVER.url(&format!("sslmode={mode}&application_name=mode-{number}"));
        assert_eq!(is_encrypted(&url).await, encrypted, "{mode}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}&application_name={mode}", SERVER.trusting(mode, "authority"));
        assert!(is_encrypted(&url).await, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_not_trusted_is_one_line() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let line = refusal(&SERVER.trusting(mode, "stranger")).await;
        assert!(line.contains("UnknownIssuer") && line.contains("sslrootcert"), "{mode}: {line}");
    }
    let url = format!("{}&application_name=fallback", SERVER.trusting("prefer", "stranger"));
    assert!(!is_encrypted(&url).await, "prefer takes what it can get, as libpq does");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hosts_certificate_is_one_line_with_verify_full_alone() {
    let elsewhere = |mode| SERVER.trusting(mode, "authority").replace("@localhost", "@db.example");
    assert!(is_encrypted(&format!("{}&application_name=any-host", elsewhere("verify-ca"))).await);
    let error = prepare(&elsewhere("verify-full"), schema()).await.unwrap_err();
    let line = error.to_string();
    assert!(matches!(error, Error::Untrusted(_)) && line.contains("db.example"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_one_line_where_it_is_required() {
    let plain = world::server("no-tls");
    let url = format!("{}?sslmode=require", plain.postgres.url());
    let error = prepare(&url, schema()).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)), "{error:?}");
    assert!(error.to_string().contains("server does not support TLS"), "{error}");
    prepare(&format!("{}?sslmode=prefer", plain.postgres.url()), schema()).await.unwrap();
}

/// A server of the kind that PostgreSQL's documentation makes: its own authority, named in the subject alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_its_own_root_is_trusted_by_its_common_name() {
    let stack = world::server("self-signed");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    serve(&stack, &certificate, &key.serialize_pem(), &certificate).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &certificate).unwrap();
    let to = |host: &str, roots: &Path| {
        let url = stack.postgres.url().replace("127.0.0.1", host);
        format!("{url}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}", roots.display())
    };
    prepare(&to("localhost", file.path()), schema()).await.unwrap();
    for wrong in [to("db.example", file.path()), to("localhost", &SERVER.file("authority"))] {
        let error = prepare(&wrong, schema()).await.unwrap_err();
        assert!(matches!(error, Error::Untrusted(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_is_shown_to_the_server() {
    let url = |key: &Path| {
        let certificate = SERVER.file("driver");
        let own = format!("sslcert={}&sslkey={}", certificate.display(), key.display());
        format!("{}&{own}&application_name=certified", SERVER.trusting("verify-full", "authority"))
    };
    let key = SERVER.file("driver-key");
    assert!(is_encrypted(&url(&key)).await);
    let sink = world::sink(&url(&key), TIMEOUT);
    pipeline::Sink::probe(&sink).await.unwrap();
    let admin = connect(&SERVER.stack.postgres.admin_url()).await;
    let names = "SELECT count(client_dn) FROM pg_stat_ssl WHERE client_dn LIKE '%CN=driver%'";
    assert!(admin.query_one(names, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let open = SERVER.file("open-key");
    fs::copy(&key, &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let given = timescale_writer::Given { url: Some(&url(&open)), password_file: None };
    let line = timescale_writer::ServerSettings::read(given, &|_| None).unwrap_err().to_string();
    assert!(line.contains("sslkey: ") && line.contains("others may read it"), "{line}");
}
