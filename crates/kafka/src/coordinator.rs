//! Which broker coordinates a group.
//!
//! A fresh cluster answers `CoordinatorNotAvailable` while it creates `__consumer_offsets`; that and the other passing
//! codes are handed to the caller as errors of kind [`crate::ErrorKind::Transient`].

use std::collections::HashMap;

use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::protocol::StrBytes;

use crate::cluster::Client;
use crate::error::Error;
use crate::types::BrokerId;

/// FindCoordinator 4 is the first that asks for many groups at a time (KIP-699).
const VERSION: i16 = 4;
const KEY_TYPE_GROUP: i8 = 0;
/// Groups in one request; the broker looks each up in memory.
const GROUPS_PER_REQUEST: usize = 1_000;
const API: &str = "FindCoordinator";

/// The broker that coordinates `group` at the moment.
pub(crate) async fn find(client: &Client, group: &str) -> Result<BrokerId, Error> {
    let mut found = find_all(client, &[group]).await?;
    found.remove(group).unwrap_or_else(|| Err(missing(group)))
}

/// The coordinators of several groups; what ails one group stands in its place.
pub(crate) async fn find_all(
    client: &Client,
    groups: &[&str],
) -> Result<HashMap<String, Result<BrokerId, Error>>, Error> {
    let mut found = HashMap::with_capacity(groups.len());
    for some in groups.chunks(GROUPS_PER_REQUEST) {
        found.extend(ask(client, some).await?);
    }
    let stranger = |broker: &Result<BrokerId, Error>| broker.as_ref().is_ok_and(|id| !client.knows_broker(*id));
    if found.values().any(stranger) {
        // The coordinator joined the cluster after our last metadata.
        client.broker_ids().await?;
    }
    Ok(found)
}

/// The groups by coordinator, and what ails those whose coordinator could not be found.
pub(crate) async fn group_by_coordinator<'g>(
    client: &Client,
    groups: &[&'g str],
) -> Result<(HashMap<BrokerId, Vec<&'g str>>, Vec<(&'g str, Error)>), Error> {
    let mut found = find_all(client, groups).await?;
    let mut by_broker: HashMap<BrokerId, Vec<&str>> = HashMap::new();
    let mut failed = Vec::new();
    for group in groups {
        match found.remove(*group).unwrap_or_else(|| Err(missing(group))) {
            Ok(broker) => by_broker.entry(broker).or_default().push(group),
            Err(error) => failed.push((*group, error)),
        }
    }
    Ok((by_broker, failed))
}

async fn ask(client: &Client, groups: &[&str]) -> Result<Vec<(String, Result<BrokerId, Error>)>, Error> {
    let keys = groups.iter().map(|group| StrBytes::from_string((*group).to_owned())).collect();
    let request = FindCoordinatorRequest::default().with_key_type(KEY_TYPE_GROUP).with_coordinator_keys(keys);
    let answer = client.ask_any(VERSION, &request).await?;
    if let Some(code) = answer.error_code.err() {
        return Err(Error::refused(API, format!("{} groups", groups.len()), code));
    }
    Ok(answer.coordinators.iter().map(|found| (found.key.to_string(), read(found))).collect())
}

fn read(found: &Coordinator) -> Result<BrokerId, Error> {
    match found.error_code.err() {
        None => Ok(BrokerId(*found.node_id)),
        Some(code) => Err(Error::refused(API, format!("group {}", found.key), code)),
    }
}

fn missing(group: &str) -> Error {
    Error::Config(format!("the cluster named no coordinator for group {group}"))
}
