//! POST a driver's position, get it acknowledged by Kafka.
//!
//! ```text
//! socket ──server──▶ request ──routes──▶ body ──positions──▶ event ──kafka──▶ acknowledged ──positions──▶ 202
//!          limits: connections     size, time     one or many        bounded buffer, time limit
//! ```
//! A 2xx means that the event is in Kafka, acknowledged by all in-sync replicas. Everything else is a
//! [`problem::Problem`], whose status code comes from one `match`.

mod admission;
mod answer;
mod auth;
mod body;
mod config;
mod cors;
mod error;
mod formats;
mod inflate;
mod kafka;
mod limits;
mod metrics;
mod positions;
mod problem;
mod reload;
mod routes;
mod server;
mod tls;

use std::sync::Arc;

use service::{Context, Info};
use tracing::{info, warn};

pub use config::Args;
pub use error::Error;

use crate::admission::Admission;
use crate::auth::Tokens;
use crate::limits::Limits;
use crate::metrics::{Levels, Metrics};
use crate::routes::App;
use crate::server::Server;

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "location-ingest",
    version: env!("CARGO_PKG_VERSION"),
    about: "Takes drivers' positions over HTTP and answers when Kafka has acknowledged them.",
    metrics_listen: "127.0.0.1:9101",
    buckets: metrics::BUCKETS,
};

/// Runs the service until shutdown, then finishes what was accepted.
///
/// # Errors
/// The listening address is taken, or Kafka's topics contradict the flags.
pub async fn run(args: Args, context: Context) -> Result<(), Error> {
    Ingest::bind(args, context).await?.serve().await
}

/// The service with its port open and nothing taken in yet.
pub struct Ingest {
    args: Args,
    tokens: Option<Tokens>,
    context: Context,
    server: Server,
}

impl Ingest {
    /// Reads the files that flags name, and opens `--listen`.
    ///
    /// # Errors
    /// A file cannot be used. The address is taken, forbidden or not this machine's.
    pub async fn bind(args: Args, context: Context) -> Result<Self, Error> {
        let tokens = args.auth_tokens.as_deref().map(Tokens::load).transpose()?;
        let server = Server::bind(&args, context.shutdown.clone()).await?;
        Ok(Self { args, tokens, context, server })
    }

    /// The address in use, also when port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.server.local_addr()
    }

    /// See [`run`].
    ///
    /// # Errors
    /// Kafka's topics contradict the flags.
    pub async fn serve(self) -> Result<(), Error> {
        let Self { args, tokens, context, server } = self;
        info!(listen = %server.local_addr(), "listening");
        warn_if_open(&args);
        let (publisher, watch, reader) = kafka::start(&args, &context);
        let (limits, admission) = (Limits::new(&args), Admission::new(&args));
        let app = Arc::new(App { args, limits, metrics: Metrics::new(), publisher, admission, tokens });
        let following =
            [tokio::spawn(admit(Arc::clone(&app), reader)), tokio::spawn(follow(Arc::clone(&app), server.follow()))];
        let (connections, shown) = (server.connections(), Arc::clone(&app));
        context.admin.add_metrics(move || shown.levels(connections()).render());
        let served = server.run(Arc::clone(&app), tokio::spawn(watch.run())).await;
        following.iter().for_each(tokio::task::JoinHandle::abort);
        app.publisher.close().await;
        served
    }
}

/// Whoever can reach the port can put drivers on the map.
fn warn_if_open(args: &Args) {
    if args.auth_tokens.is_none() && args.tls_client_ca.is_none() && !args.listen.ip().is_loopback() {
        warn!(
            "--listen {}: anyone who reaches it may post as any driver; give --auth-tokens or --tls-client-ca",
            args.listen
        );
    }
}

/// Follows the files that may change, for ever.
async fn follow(app: Arc<App>, certificates: impl Future<Output = ()>) {
    let tokens = async {
        if let Some(tokens) = &app.tokens {
            tokens.follow().await;
        }
    };
    tokio::join!(tokens, certificates);
}

/// Keeps admission up to date for ever.
async fn admit(app: Arc<App>, reader: kafka::lag::Reader) {
    tokio::join!(app.admission.follow(reader), app.admission.regulate(|| app.fullness()));
}

impl App {
    /// How full the fullest of the bounded places is, 0 to 1.
    fn fullness(&self) -> f64 {
        let share = |used: usize, limit: usize| used as f64 / limit.max(1) as f64;
        let requests = share(self.limits.requests_in_flight(), self.args.max_requests_in_flight);
        let bodies = share(self.limits.body_bytes_in_flight(), self.args.max_body_bytes_in_flight);
        let producer = share(self.publisher.stats().buffered_bytes, self.args.producer_buffer);
        requests.max(bodies).max(producer)
    }

    fn levels(&self, connections: usize) -> Levels {
        let producer = self.publisher.stats();
        Levels {
            connections,
            requests: self.limits.requests_in_flight(),
            body_bytes: self.limits.body_bytes_in_flight(),
            producer_bytes: producer.buffered_bytes,
            producer_requests: producer.requests,
            producer_retries: producer.retries,
            admission: self.admission.shown(),
        }
    }
}
