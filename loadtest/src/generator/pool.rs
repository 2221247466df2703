//! Keep-alive connections, one request at a time on each, the most recently used first: few stay hot, and phones do not pipeline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::Clock;
use crate::plan::Post;
use crate::response::{self, After};

/// Readiness reports taken per turn; the others come with the next one.
const EVENTS: usize = 4_096;
/// Largest piece read at once; an answer is far smaller.
const READ_BYTES: usize = 64 * 1_024;
/// Connections that may be under way at a time, so that a slow server is not stormed.
const CONNECTING_LIMIT: usize = 64;
/// A connection idle for longer is closed from our side: servers close idle ones too, and a request that meets such an end on
/// its way has an unknown outcome.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a connection was refused.
const CONNECT_BACKOFF: Duration = Duration::from_millis(50);

/// A POST that was written and not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    /// Number of its first event in the ledger.
    pub(super) first: usize,
    /// The events that it carries.
    pub(super) post: Post,
    /// When it was written.
    pub(super) sent_at: Duration,
}

/// What came of a flight.
pub(super) enum Heard<'a> {
    /// The server answered.
    Answer { status: u16, body: &'a [u8] },
    /// The connection broke, or the time for an answer passed.
    Nothing,
}

/// All connections to one server.
pub(super) struct Pool {
    address: SocketAddr,
    limit: usize,
    poll: Poll,
    events: Events,
    ready: Vec<Ready>,
    slots: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    /// Idle connections and since when; the last one was used last.
    idle: Vec<Idle>,
    connecting: usize,
    connect_after: Duration,
    buffer: Box<[u8]>,
}

#[derive(Clone, Copy)]
struct Idle {
    slot: usize,
    since: Duration,
}

#[derive(Clone, Copy)]
struct Ready {
    slot: usize,
    reading: Reading,
}

/// Whether a read shorter than the buffer has emptied the socket (epoll(7), edge-triggered) or an end is known to follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    UntilShort,
    UntilEnd,
}

struct Connection {
    stream: TcpStream,
    state: State,
    unsent: Vec<u8>,
    partial: Vec<u8>,
}

enum State {
    Connecting,
    Idle,
    Busy(Flight),
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(address: SocketAddr, limit: usize) -> io::Result<Self> {
        Ok(Self {
            address,
            limit,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            ready: Vec::with_capacity(EVENTS),
            slots: Vec::new(),
            vacant: Vec::new(),
            idle: Vec::new(),
            connecting: 0,
            connect_after: Duration::ZERO,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Connections that exist, connecting ones included.
    pub(super) fn open(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Connections that wait for an answer.
    pub(super) fn busy(&self) -> usize {
        self.open() - self.idle.len() - self.connecting
    }

    /// Starts connections for `waiting` POSTs, within the limits.
    pub(super) fn widen(&mut self, waiting: usize, now: Duration) {
        if now < self.connect_after {
            return;
        }
        let room = (self.limit - self.open()).min(CONNECTING_LIMIT.saturating_sub(self.connecting));
        for _ in self.connecting..waiting.min(self.connecting + room) {
            if self.connect().is_err() {
                self.connect_after = now + CONNECT_BACKOFF;
                return;
            }
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Token(slot), interest) {
            self.vacant.push(slot);
            return Err(error);
        }
        let connection = Connection { stream, state: State::Connecting, unsent: Vec::new(), partial: Vec::new() };
        self.slots[slot] = Some(connection);
        self.connecting += 1;
        Ok(())
    }

    /// Writes `request` to the most recently used idle connection; `None` when there is none.
    pub(super) fn send(&mut self, request: &[u8], flight: Flight) -> Option<()> {
        while let Some(Idle { slot, .. }) = self.idle.pop() {
            let connection = self.slots[slot].as_mut().expect("an idle slot holds a connection");
            match connection.write(request) {
                Ok(()) => {
                    connection.state = State::Busy(flight);
                    return Some(());
                }
                // Not a byte of the request went out, so that it may go by another connection.
                Err(_) => self.vacate(slot),
            }
        }
        None
    }

    /// Takes in what has arrived and tells `hear` of each flight that ended.
    pub(super) fn turn(&mut self, clock: &Clock, hear: &mut impl FnMut(Flight, Heard<'_>)) {
        // An interrupted poll reports nothing; the next turn is a tick away.
        if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_err() {
            return;
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend(self.events.iter().map(|event| {
            let ended = event.is_read_closed() || event.is_error();
            let reading = if ended { Reading::UntilEnd } else { Reading::UntilShort };
            Ready { slot: event.token().0, reading }
        }));
        for ready in ready.drain(..) {
            self.drive(ready, clock, hear);
        }
        self.ready = ready;
    }

    fn drive(&mut self, ready: Ready, clock: &Clock, hear: &mut impl FnMut(Flight, Heard<'_>)) {
        let Some(connection) = self.slots[ready.slot].as_mut() else { return };
        if matches!(connection.state, State::Connecting) {
            return self.settle_connect(ready.slot, clock);
        }
        let was_busy = matches!(connection.state, State::Busy(_));
        match connection.advance(&mut self.buffer, ready.reading, hear) {
            After::Close => {
                if !was_busy {
                    self.idle.retain(|idle| idle.slot != ready.slot);
                }
                self.vacate(ready.slot);
            }
            After::Open if was_busy && matches!(connection.state, State::Idle) => {
                self.idle.push(Idle { slot: ready.slot, since: clock.now() });
            }
            After::Open => {}
        }
    }

    fn settle_connect(&mut self, slot: usize, clock: &Clock) {
        let connection = self.slots[slot].as_mut().expect("checked by the caller");
        let failed = matches!(connection.stream.take_error(), Err(_) | Ok(Some(_)));
        if failed {
            self.connecting -= 1;
            self.connect_after = clock.now() + CONNECT_BACKOFF;
            self.vacate(slot);
        } else if connection.stream.peer_addr().is_ok() {
            self.connecting -= 1;
            connection.state = State::Idle;
            self.idle.push(Idle { slot, since: clock.now() });
        }
    }

    /// Closes connections that nobody needs any more.
    pub(super) fn close_idle(&mut self, now: Duration) {
        let kept = self.idle.partition_point(|idle| idle.since + IDLE_LIMIT < now);
        for Idle { slot, .. } in self.idle.drain(..kept).collect::<Vec<_>>() {
            self.vacate(slot);
        }
    }

    /// Gives up flights written before `deadline`.
    pub(super) fn give_up_before(&mut self, deadline: Duration, hear: &mut impl FnMut(Flight, Heard<'_>)) {
        for slot in 0..self.slots.len() {
            let Some(Connection { state: State::Busy(flight), .. }) = &self.slots[slot] else { continue };
            if flight.sent_at <= deadline {
                hear(*flight, Heard::Nothing);
                self.vacate(slot);
            }
        }
    }

    fn vacate(&mut self, slot: usize) {
        // Dropping the stream closes it, which takes it out of the poll as well.
        self.slots[slot] = None;
        self.vacant.push(slot);
    }
}

impl Connection {
    /// Writes a request or keeps what the socket does not take; an error means that nothing was written.
    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        let written = match self.stream.write(request) {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        self.unsent.extend_from_slice(&request[written..]);
        Ok(())
    }

    fn advance(&mut self, buffer: &mut [u8], reading: Reading, hear: &mut impl FnMut(Flight, Heard<'_>)) -> After {
        let mut after = self.receive(buffer, reading, hear);
        if after == After::Open {
            after = self.flush();
        }
        if let (After::Close, State::Busy(flight)) = (after, &self.state) {
            hear(*flight, Heard::Nothing);
        }
        after
    }

    fn receive(&mut self, buffer: &mut [u8], reading: Reading, hear: &mut impl FnMut(Flight, Heard<'_>)) -> After {
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return After::Close,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return After::Open,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return After::Close,
            };
            if self.take(&buffer[..length], hear) == After::Close {
                return After::Close;
            }
            if length < buffer.len() && reading == Reading::UntilShort {
                return After::Open;
            }
        }
    }

    /// Takes in bytes of an answer.
    fn take(&mut self, bytes: &[u8], hear: &mut impl FnMut(Flight, Heard<'_>)) -> After {
        // Nobody asked: a server that closes an idle connection may say why first.
        let State::Busy(flight) = self.state else { return After::Close };
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
        }
        let whole = if self.partial.is_empty() { bytes } else { &self.partial };
        match response::parse(whole) {
            Err(_) => After::Close,
            Ok(None) => {
                if self.partial.is_empty() {
                    self.partial.extend_from_slice(bytes);
                }
                After::Open
            }
            Ok(Some(response)) => {
                hear(flight, Heard::Answer { status: response.status, body: &whole[response.body] });
                self.partial.clear();
                self.state = State::Idle;
                // An answer before the end of the request: the rest of it would be read as the next one.
                if self.unsent.is_empty() { response.connection } else { After::Close }
            }
        }
    }

    fn flush(&mut self) -> After {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return After::Open,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return After::Close,
            }
        }
        After::Open
    }
}
