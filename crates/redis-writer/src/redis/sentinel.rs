//! Which server is the master, by what the sentinels say.
//!
//! All of them are asked at once: one that is frozen or cut off delays nobody, and of two that disagree the one with the
//! later configuration epoch is right.

use std::time::Duration;

use fred::types::Value;
use fred::types::config::{Config, Server, ServerConfig};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::connection::{Fault, Link, Reason, Template};

/// How long the others may take to contradict the first answer.
const SECOND_THOUGHTS: Duration = Duration::from_millis(200);

/// How to ask the sentinels of one master.
#[derive(Debug)]
pub(super) struct Sentinels {
    service: String,
    /// With the credentials to try, in this order.
    templates: Vec<Template>,
}

/// What sentinels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) master: Server,
    /// Grows with each failover.
    epoch: u64,
    /// Sentinels of the same master.
    pub(super) sentinels: Vec<Server>,
}

impl Sentinels {
    /// From a configuration for Sentinel; `None` when it is for something else. Sentinels have users of their own: those
    /// of the URL's parameters, else none, else those of the servers.
    pub(super) fn new(template: &Template) -> Option<Self> {
        let ServerConfig::Sentinel { service_name, username, password, .. } = &template.config.server else {
            return None;
        };
        let with = |username: &Option<String>, password: &Option<String>| {
            let (username, password) = (username.clone(), password.clone());
            // A sentinel has no databases to choose from.
            let config = Config { username, password, database: None, ..template.config.clone() };
            Template { config, timeout: template.timeout }
        };
        let servers = &template.config;
        let templates = match password {
            Some(_) => vec![with(username, password)],
            None => vec![with(&None, &None), with(&servers.username, &servers.password)],
        };
        Some(Self { service: service_name.clone(), templates })
    }

    /// What the best informed of `sentinels` says.
    pub(super) async fn ask(&self, sentinels: &[Server]) -> Result<Told, Fault> {
        let mut answers: FuturesUnordered<_> = sentinels.iter().map(|sentinel| self.ask_one(sentinel)).collect();
        let mut fault = None;
        let mut best = loop {
            match (answers.next().await, fault) {
                (Some(Ok(told)), _) => break told,
                (Some(Err(first)), None) => fault = Some(first),
                (Some(Err(_)), first) => fault = first,
                (None, first) => return Err(first.unwrap_or_else(|| Fault::connecting(""))),
            }
        };
        let others = async {
            while let Some(answer) = answers.next().await {
                answer.into_iter().for_each(|told| best.hear(told));
            }
        };
        // Those who are silent for longer are left alone.
        tokio::time::timeout(SECOND_THOUGHTS, others).await.ok();
        Ok(best)
    }

    async fn ask_one(&self, sentinel: &Server) -> Result<Told, Fault> {
        let mut answer = Err(Fault::connecting(sentinel.to_string()));
        for template in &self.templates {
            answer = self.ask_as(template, sentinel).await;
            if !matches!(&answer, Err(fault) if fault.is_denied()) {
                break;
            }
        }
        answer
    }

    async fn ask_as(&self, template: &Template, sentinel: &Server) -> Result<Told, Fault> {
        let failed = |error| Fault { server: sentinel.to_string().into(), reason: Reason::Call(error) };
        let link = Link::start(template, sentinel).map_err(failed)?;
        link.settled().await;
        let master = link.command("SENTINEL", &["MASTER", &self.service]).await?;
        // Whoever may not ask for the others makes do with those that were given.
        let others = link.command("SENTINEL", &["SENTINELS", &self.service]).await.unwrap_or(Value::Null);
        let unreadable = || failed(fred::error::Error::new(fred::error::ErrorKind::Parse, "no master in the answer"));
        Told::read(&master, &others, sentinel).ok_or_else(unreadable)
    }
}

impl Told {
    fn read(master: &Value, others: &Value, sentinel: &Server) -> Option<Self> {
        let mut sentinels = vec![sentinel.clone()];
        if let Value::Array(others) = others {
            sentinels.extend(others.iter().filter_map(server));
        }
        Some(Self { master: server(master)?, epoch: field(master, "config-epoch")?.parse().ok()?, sentinels })
    }

    fn hear(&mut self, other: Self) {
        for sentinel in other.sentinels {
            if !self.sentinels.contains(&sentinel) {
                self.sentinels.push(sentinel);
            }
        }
        if other.epoch > self.epoch {
            (self.master, self.epoch) = (other.master, other.epoch);
        }
    }
}

fn server(fields: &Value) -> Option<Server> {
    Some(Server::new(field(fields, "ip")?, field(fields, "port")?.parse().ok()?))
}

/// A field of a list of names and values.
fn field(fields: &Value, name: &str) -> Option<String> {
    let Value::Array(fields) = fields else { return None };
    fields.chunks_exact(2).find(|pair| pair[0].as_str().as_deref() == Some(name))?[1].as_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(port: &str, epoch: &str) -> Value {
        let words = ["name", "main", "ip", "10.0.0.1", "port", port, "config-epoch", epoch];
        Value::Array(words.map(Value::from).to_vec())
    }

    fn told(port: &str, epoch: &str, sentinel: u16) -> Told {
        let others = Value::Array(vec![fields("26379", "0")]);
        Told::read(&fields(port, epoch), &others, &Server::new("10.0.0.1", sentinel)).unwrap()
    }

    #[test]
    fn the_later_epoch_is_right_whoever_answers_first() {
        let (old, new) = (told("7000", "3", 1), told("7001", "4", 2));
        for (mut first, second) in [(old.clone(), new.clone()), (new, old)] {
            first.hear(second);
            assert_eq!((first.master.to_string().as_str(), first.sentinels.len()), ("10.0.0.1:7001", 3));
        }
    }

    #[test]
    fn an_answer_without_a_master_is_none() {
        let sentinel = Server::new("10.0.0.1", 1);
        for answer in [Value::Null, Value::Array(Vec::new()), fields("x", "1"), fields("7000", "")] {
            assert_eq!(Told::read(&answer, &Value::Null, &sentinel), None, "{answer:?}");
        }
    }
}
