//! Which server owns which hash slot, and where an answer sends us instead. Pure.

use fred::types::Value;
use fred::types::config::Server;

/// Hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;
/// In place of an index, for a slot that no server owns.
const NOBODY: u16 = u16::MAX;

/// Owners of all slots, as one server saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    masters: Vec<Server>,
    /// For each slot the index of its master.
    owners: Vec<u16>,
    replicas: Vec<Server>,
}

impl SlotMap {
    /// Nobody owns anything.
    pub(super) fn empty() -> Self {
        Self { masters: Vec::new(), owners: vec![NOBODY; SLOTS], replicas: Vec::new() }
    }

    /// One server owns everything: what a master behind Sentinel amounts to.
    pub(super) fn whole(master: Server) -> Self {
        Self { masters: vec![master], owners: vec![0; SLOTS], replicas: Vec::new() }
    }

    /// Reads the answer of `CLUSTER SLOTS`: for each range its first and last slot, its master, its replicas; `None` when
    /// it is not of that form. A server without a host is on the one that was `asked`, one whose host is not known
    /// (`?`) cannot be reached and is left out.
    pub(super) fn read(answer: &Value, asked: &Server) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let mut map = Self::empty();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [first, last, master, replicas @ ..] = range.as_slice() else { return None };
            let slots = slot(first)?..=slot(last)?;
            if let Some(master) = server(master, asked)? {
                let index = map.index_of(master)?;
                map.owners.get_mut(slots)?.fill(index);
            }
            for replica in replicas {
                map.replicas.extend(server(replica, asked)?);
            }
        }
        Some(map)
    }

    /// The master of a slot, if it has one.
    pub(super) fn owner(&self, slot: u16) -> Option<&Server> {
        self.masters.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub(super) fn masters(&self) -> &[Server] {
        &self.masters
    }

    /// All servers, masters first.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Slots that have a master.
    pub(super) fn covered(&self) -> usize {
        self.owners.iter().filter(|owner| **owner != NOBODY).count()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.covered() == SLOTS
    }

    fn index_of(&mut self, master: Server) -> Option<u16> {
        let index = self.masters.iter().position(|known| *known == master).unwrap_or(self.masters.len());
        if index == self.masters.len() {
            self.masters.push(master);
        }
        u16::try_from(index).ok().filter(|index| *index != NOBODY)
    }
}

fn slot(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|slot| usize::try_from(slot).ok())
}

/// `None` when it is no server at all, `Some(None)` when nobody knows where it is.
fn server(node: &Value, asked: &Server) -> Option<Option<Server>> {
    let Value::Array(parts) = node else { return None };
    let [host, port, ..] = parts.as_slice() else { return None };
    let port = u16::try_from(port.as_u64()?).ok()?;
    let host = if host.is_null() { None } else { Some(host.as_str()?) };
    Some(located(host.as_deref().unwrap_or_default(), port, asked))
}

fn located(host: &str, port: u16, asked: &Server) -> Option<Server> {
    match host {
        "" => Some(Server { port, ..asked.clone() }),
        "?" => None,
        host => Some(Server::new(host, port)),
    }
}

/// Where a server sends us with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirection {
    /// The slot belongs to that server.
    Moved(Server),
    /// The slot is moving to that server, and what the call is about is there already, or is new.
    Ask(Server),
}

impl Redirection {
    /// Reads `MOVED 3999 10.0.0.1:6381` or `ASK …`, said by `asked`.
    pub(super) fn read(said: &str, asked: &Server) -> Option<Self> {
        let mut words = said.split(' ');
        let kind = match words.next()? {
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            _ => return None,
        };
        let (host, port) = words.nth(1)?.rsplit_once(':')?;
        located(host, port.parse().ok()?, asked).map(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Server {
        Server::new("10.0.0.1", 7_000)
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Integer(port), Value::from("id"), Value::Array(Vec::new())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut parts = vec![Value::Integer(first), Value::Integer(last)];
        parts.extend(nodes);
        Value::Array(parts)
    }

    #[test]
    fn the_answer_says_who_owns_each_slot() {
        let [a, b, c] = [("10.0.0.1", 7_000), ("10.0.0.2", 7_001), ("10.0.0.3", 7_002)];
        let node = |(host, port): (&str, i64)| node(Value::from(host), port);
        let answer = Value::Array(vec![
            range(0, 99, vec![node(a), node(c)]),
            range(100, 100, vec![node(b)]),
            range(200, 16_383, vec![node(a)]),
        ]);
        let map = SlotMap::read(&answer, &asked()).unwrap();
        let owner = |slot| map.owner(slot).map(ToString::to_string);
        assert_eq!(
            [0, 99, 100, 101, 200, 16_383].map(owner).map(Option::unwrap_or_default),
            ["10.0.0.1:7000", "10.0.0.1:7000", "10.0.0.2:7001", "", "10.0.0.1:7000", "10.0.0.1:7000"]
        );
        assert_eq!((map.masters().len(), map.servers().count(), map.is_complete()), (2, 3, false));
        assert_eq!(map.covered(), SLOTS - 99);
        assert_eq!(owner(16_384), None);
    }

    #[test]
    fn a_server_without_a_host_is_on_the_one_that_was_asked() {
        for host in [Value::Null, Value::from("")] {
            let answer = Value::Array(vec![range(0, 16_383, vec![node(host, 7_009)])]);
            let map = SlotMap::read(&answer, &asked()).unwrap();
            assert_eq!((map.masters(), map.is_complete()), (&[Server::new("10.0.0.1", 7_009)][..], true));
        }
    }

    #[test]
    fn a_server_whose_host_nobody_knows_owns_nothing() {
        let answer = Value::Array(vec![range(0, 16_383, vec![node(Value::from("?"), 7_009)])]);
        assert_eq!(SlotMap::read(&answer, &asked()), Some(SlotMap::empty()));
    }

    #[test]
    fn an_answer_of_another_form_is_none() {
        let table = [
            Value::Null,
            Value::from("OK"),
            Value::Array(vec![Value::Integer(1)]),
            Value::Array(vec![range(0, 16_384, vec![node(Value::from("a"), 1)])]),
            Value::Array(vec![range(6, 4, vec![node(Value::from("a"), 1)])]),
            Value::Array(vec![range(-1, 4, vec![node(Value::from("a"), 1)])]),
            Value::Array(vec![range(0, 4, vec![node(Value::from("a"), 65_536)])]),
            Value::Array(vec![range(0, 4, vec![Value::from("a:1")])]),
            Value::Array(vec![range(0, 4, Vec::new())]),
        ];
        for answer in table {
            assert_eq!(SlotMap::read(&answer, &asked()), None, "{answer:?}");
        }
    }

    #[test]
    fn redirections_are_read() {
        let [moved, ask] = [Redirection::Moved, Redirection::Ask];
        let table = [
            ("MOVED 3999 10.0.0.9:6381", Some(moved(Server::new("10.0.0.9", 6_381)))),
            ("ASK 3999 redis-3.example:6381", Some(ask(Server::new("redis-3.example", 6_381)))),
            ("MOVED 3999 :6381", Some(moved(Server::new("10.0.0.1", 6_381)))),
            ("MOVED 1 2001:db8::1:6381", Some(moved(Server::new("2001:db8::1", 6_381)))),
            ("MOVED 3999 ?:6381", None),
            ("MOVED 3999", None),
            ("MOVED 3999 10.0.0.9:x", None),
            ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ];
        for (said, expected) in table {
            assert_eq!(Redirection::read(said, &asked()), expected, "{said}");
        }
    }
}
