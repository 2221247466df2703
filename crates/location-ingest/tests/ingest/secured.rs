//! TLS, clients' certificates, tokens, CORS, and HTTP/2 with prior knowledge.

use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use native::{Authority, Issued};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::cluster::{LIMIT, Running};
use crate::phone::{BATCH, Phone, SINGLE, now_ms, position, request};

const JSON: &str = "Content-Type: application/json";

fn write(dir: &Path, issued: &Issued) {
    // Replaced as a whole, as deployments do it.
    for (name, content) in [("key.pem", &issued.key), ("certificate.pem", &issued.certificate)] {
        let next = dir.join(format!("{name}.next"));
        std::fs::write(&next, content).unwrap();
        std::fs::rename(next, dir.join(name)).unwrap();
    }
}

fn flags(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![format!("--tls-certificate={}", file("certificate.pem")), format!("--tls-key={}", file("key.pem"))]
}

async fn connect(
    ingest: &Running,
    authority: &Authority,
    identity: Option<&Issued>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(ingest.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The status line of one HTTP/1.1 request.
async fn status_over<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

/// Posts over HTTP/2 and gives the status.
async fn post_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    path: &str,
    body: String,
) -> (u16, Bytes) {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    assert!(answer.headers().contains_key("x-next-update-ms"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    driving.abort();
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_beside_http1_without_an_upgrade() {
    let ingest = Running::ready("secured-http2", &[]).await;
    let body = position("driver-1", now_ms()).to_string();
    let stream = TcpStream::connect(ingest.address).await.unwrap();
    assert_eq!(post_http2(stream, SINGLE, body.clone()).await.0, 202);
    let stream = TcpStream::connect(ingest.address).await.unwrap();
    let (status, answer) = post_http2(stream, BATCH, format!("[{body}]")).await;
    assert_eq!((status, answer.starts_with(b"{\"accepted\":1,")), (200, true));
    // The preface may come byte by byte.
    let mut slow = TcpStream::connect(ingest.address).await.unwrap();
    slow.write_all(b"PO").await.unwrap();
    let rest = request("POST", SINGLE, &[JSON], &body);
    assert_eq!(status_over(slow, &rest[2..]).await.unwrap(), "HTTP/1.1 202");
    assert_eq!(ingest.events().await.len(), 3);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_http2_connections_too() {
    let ingest = Running::ready("secured-drain", &[]).await;
    let stream = TcpStream::connect(ingest.address).await.unwrap();
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    while ingest.counter("ingest_connections") < 1 {
        tokio::task::yield_now().await;
    }
    ingest.stop().await.unwrap();
    let _ = tokio::time::timeout(LIMIT, driving).await.expect("the server ends the connection");
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    write(dir.path(), &first.issue(&["localhost"]));
    let flags = flags(dir.path());
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let ingest = Running::ready("secured-tls", &flags).await;
    let posted = request("POST", SINGLE, &[JSON], &position("driver-1", now_ms()).to_string());
    let stream = connect(&ingest, &first, None, b"http/1.1").await.unwrap();
    assert_eq!(status_over(stream, &posted).await.unwrap(), "HTTP/1.1 202");
    let stream = connect(&ingest, &first, None, b"h2").await.unwrap();
    assert_eq!(post_http2(stream, SINGLE, position("driver-2", now_ms()).to_string()).await.0, 202);
    assert!(connect(&ingest, &second, None, b"http/1.1").await.is_err());
    // Half of a new pair changes nothing; then the whole of it does.
    let issued = second.issue(&["localhost"]);
    std::fs::write(dir.path().join("key.pem"), "nonsense").unwrap();
    write(dir.path(), &issued);
    let replaced = async {
        while connect(&ingest, &second, None, b"http/1.1").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, replaced).await.expect("the new certificate is used");
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_only_its_clients_are_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    write(dir.path(), &authority.issue(&["localhost"]));
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let mut flags = flags(dir.path());
    flags.push(format!("--tls-client-ca={}", dir.path().join("ca.pem").display()));
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let ingest = Running::ready("secured-mtls", &flags).await;
    let posted = request("POST", SINGLE, &[JSON], &position("driver-1", now_ms()).to_string());
    let known = authority.issue(&["a phone"]);
    let stream = connect(&ingest, &authority, Some(&known), b"http/1.1").await.unwrap();
    assert_eq!(status_over(stream, &posted).await.unwrap(), "HTTP/1.1 202");
    for identity in [None, Some(other.issue(&["a phone"]))] {
        // With TLS 1.3 a client hears of its refusal only when it reads.
        let outcome =
            async { status_over(connect(&ingest, &authority, identity.as_ref(), b"http/1.1").await?, &posted).await };
        assert!(outcome.await.is_err());
    }
    assert_eq!(ingest.events().await.len(), 1);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_and_bound_to_its_drivers() {
    // `printf secret | sha256sum` and `printf other | sha256sum`
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, format!("{SECRET} taxi-\n")).unwrap();
    let ingest = Running::ready("secured-tokens", &[&format!("--auth-tokens={}", file.display())]).await;
    let post = async |path: &str, token: &str, body: &str| {
        let authorization = format!("Authorization: Bearer {token}");
        Phone::connect(ingest.address).await.send(&request("POST", path, &[JSON, &authorization], body)).await
    };
    let (taxi, bus) = (position("taxi-1", now_ms()).to_string(), position("bus-1", now_ms()).to_string());
    assert_eq!(post(SINGLE, "secret", &taxi).await.status, 202);
    let answer = post(SINGLE, "secret", &bus).await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden_driver"));
    let answer = post(BATCH, "secret", &format!("[{taxi},{bus}]")).await.json();
    assert_eq!(
        answer["rejected"],
        serde_json::json!([{"index": 1, "code": "forbidden_driver", "field": "driverId", "retry": false}])
    );
    let answer = post(SINGLE, "wrong", &taxi).await;
    assert_eq!((answer.status, answer.problem().as_str()), (401, "invalid_token"));
    let answer = Phone::connect(ingest.address).await.post(SINGLE, &taxi).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(answer.problem(), "missing_token");
    let query = "GET /api/drivers/osmand?id=taxi-2&lat=1&lon=2&token=secret HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Phone::connect(ingest.address).await.send(query).await.status, 200);
    let open = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Phone::connect(ingest.address).await.send(open).await.json()["openapi"], "3.1.0");

    std::fs::write(&file, format!("{OTHER}\n")).unwrap();
    let replaced = async {
        while post(SINGLE, "secret", &taxi).await.status != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, replaced).await.expect("the token that was taken out is not known any more");
    assert_eq!(post(SINGLE, "other", &bus).await.status, 202, "good for all drivers");
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_origins_may_post_from_a_browser() {
    let ingest = Running::ready("secured-cors", &["--cors-origins=https://app.example"]).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS {SINGLE} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        )
    };
    let answer = Phone::connect(ingest.address).await.send(&preflight("https://app.example")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("https://app.example")));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    let answer = Phone::connect(ingest.address).await.send(&preflight("https://evil.example")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let body = position("driver-1", now_ms()).to_string();
    let posted = request("POST", SINGLE, &[JSON, "Origin: https://app.example"], &body);
    let answer = Phone::connect(ingest.address).await.send(&posted).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (202, Some("https://app.example")));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-next-update-ms"));
    ingest.stop().await.unwrap();
}
