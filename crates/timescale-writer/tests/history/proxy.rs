//! A stretch of network that loses a COMMIT, or the answer to it, or holds up what the client says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is lost, once; the connection breaks with it.
#[derive(Clone, Copy)]
pub(crate) enum Lose {
    Question = 1,
    Answer = 2,
}

const NOTHING: u8 = 0;
/// What a client sends: a simple query with its terminator.
const QUESTION: &[u8] = b"COMMIT\0";
/// What the server answers: `CommandComplete`, whose tag has the same bytes.
const ANSWER: &[u8] = b"COMMIT\0";
const PIECE: usize = 64 << 10;

pub(crate) struct Proxy {
    /// The database's URL by way of the proxy.
    pub(crate) url: String,
    armed: Arc<AtomicU8>,
    gate: Arc<Gate>,
}

/// Whether what the client says is held up.
struct Gate {
    is_closed: watch::Sender<bool>,
    is_holding: AtomicBool,
}

impl Gate {
    async fn pass(&self) {
        if *self.is_closed.borrow() {
            self.is_holding.store(true, Ordering::SeqCst);
            let mut state = self.is_closed.subscribe();
            let _open = state.wait_for(|is_closed| !is_closed).await;
        }
    }
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (before, after) = url.rsplit_once('@').unwrap();
        let (server, database) = after.split_once('/').unwrap();
        let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
        let server = if server.contains(':') { server.to_owned() } else { format!("{server}:5432") };
        let armed = Arc::new(AtomicU8::new(NOTHING));
        let gate = Arc::new(Gate { is_closed: watch::Sender::new(false), is_holding: AtomicBool::new(false) });
        let proxy = Self { url, armed: Arc::clone(&armed), gate: Arc::clone(&gate) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(join(client, server, Arc::clone(&armed), Arc::clone(&gate)));
            }
        });
        proxy
    }

    pub(crate) fn arm(&self, loss: Lose) {
        self.armed.store(loss as u8, Ordering::SeqCst);
    }

    /// From now on nothing that the client says arrives.
    pub(crate) fn hold(&self) {
        self.gate.is_closed.send_replace(true);
    }

    /// Whether there is something that does not arrive.
    pub(crate) fn is_holding(&self) -> bool {
        self.gate.is_holding.load(Ordering::SeqCst)
    }

    /// It all arrives.
    pub(crate) fn release(&self) {
        self.gate.is_closed.send_replace(false);
    }
}

async fn join(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicU8>, gate: Arc<Gate>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let loses = |loss: Lose, piece: &[u8], what: &[u8]| {
        piece.windows(what.len()).any(|window| window == what)
            && armed.compare_exchange(loss as u8, NOTHING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    let forth = async {
        let mut piece = vec![0; PIECE];
        while let Ok(1..) = from_client.read(&mut piece).await.inspect(|length| piece.truncate(*length)) {
            gate.pass().await;
            if loses(Lose::Question, &piece, QUESTION) || to_server.write_all(&piece).await.is_err() {
                break;
            }
            piece.resize(PIECE, 0);
        }
    };
    let back = async {
        let mut piece = vec![0; PIECE];
        while let Ok(1..) = from_server.read(&mut piece).await.inspect(|length| piece.truncate(*length)) {
            if loses(Lose::Answer, &piece, ANSWER) || to_client.write_all(&piece).await.is_err() {
                break;
            }
            piece.resize(PIECE, 0);
        }
    };
    // The end of one direction is the end of both.
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}
