//! A topic, created and known everywhere.

use std::time::Duration;

use kafka::{Client, TopicMetadata, TopicSpec};

use crate::error::Error;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Creates `name` and waits until each of its partitions has a leader.
pub(crate) async fn create(client: &Client, name: &str, partitions: i32) -> Result<(), Error> {
    client.create_topic(&TopicSpec { name: name.to_owned(), partitions, replication: None, settings: vec![] }).await?;
    let known = async {
        loop {
            let topics = client.topics(&[name]).await.unwrap_or_default();
            let has_leaders = |topic: &TopicMetadata| topic.partitions.iter().all(|one| one.leader.is_some());
            if topics.into_iter().flatten().any(|topic| has_leaders(&topic)) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let limited = tokio::time::timeout(LIMIT, known).await;
    limited.map_err(|_| Error::Client(format!("topic {name} is not there after {LIMIT:?}")))
}
