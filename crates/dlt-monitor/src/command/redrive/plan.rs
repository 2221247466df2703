//! What a redrive has before it: its name, where it stands, which letters are left, and what becomes of each.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kafka::{Committed, Offset, OffsetSpec, TopicPartition};

use super::RedriveArgs;
use crate::command::Desk;
use crate::error::Error;
use crate::filter::{Filter, key_text};
use crate::moment::now_ms;
use crate::once::Once;
use crate::original::{Original, Policy, Stays, restore};
use crate::scan::{Part, Place, Scan, offsets};

use super::hold::patiently;

/// Name of a redrive of everything.
pub const DEFAULT_NAME: &str = "all";
/// What stands between the topic of the letters and the name, in the name of its group.
const GROUP_INFIX: &str = ".redrive.";
const NAME_MAX: usize = 150;
/// Distinct originals that a redrive remembers, the newest ones; about 100 MB.
pub(crate) const ONCE_LIMIT: usize = 2_000_000;
/// Kafka keeps 4,096 bytes of metadata beside an offset by default.
const WORDS_MAX: usize = 2_000;
const METADATA_VERSION: &str = "dlt-redrive/1";

/// The consumer group that holds the progress of the redrive `name` of a dead letter topic.
pub fn progress_group(dead_letter_topic: &str, name: &str) -> String {
    format!("{dead_letter_topic}{GROUP_INFIX}{name}")
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(legal) {
        return Ok(text.to_owned());
    }
    Err(format!("give 1 to {NAME_MAX} of letters, digits, '.', '_' and '-'"))
}

/// See the head of the file.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) group: String,
    pub(super) policy: Policy,
    /// The letters that are not settled yet.
    pub(super) scan: Scan,
    /// The letters that are, as far as earlier runs looked at them.
    settled: Scan,
    filter: Filter,
    earlier: Option<Earlier>,
    words: String,
}

/// What an earlier run has left beside its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Earlier {
    /// Where its filter began.
    since_ms: i64,
    words: String,
}

/// What becomes of one letter, others not considered.
pub(super) struct Step {
    pub(super) place: Place,
    pub(super) outcome: Result<Original, Stays>,
}

/// What becomes of the letters of one answer.
pub(super) struct Steps {
    pub(super) filtered: u64,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    pub(super) async fn make(desk: &Desk, args: &RedriveArgs) -> Result<Self, Error> {
        let now = now_ms();
        let (filter, words) = (args.filter.filter(now), words(args));
        let name = args.name.clone().unwrap_or_else(|| default_name(&words));
        let group = progress_group(&desk.dead_letter_topic, &name);
        let mut scan = Scan::open(&desk.client, &desk.dead_letter_topic, &filter).await?;
        let policy = policy(desk, args).await?;
        if let Some(until) = filter.until_ms {
            // What is newer is left for a later run: the position must not pass it.
            scan = end_at(desk, scan, until).await?;
        }
        let committed = committed(desk, &group).await?;
        let earlier =
            committed.values().filter_map(|committed| Earlier::parse(&committed.metadata)).min_by_key(|e| e.since_ms);
        if let Some(earlier) = earlier.as_ref().filter(|earlier| earlier.words != words) {
            let other = if earlier.words.is_empty() { "no filter" } else { &earlier.words };
            return Err(Error::Input(format!("--name {name}: was begun with {other}; give the same, or another name")));
        }
        let settled = settled(desk, &filter, &earlier, &committed).await?;
        for stretch in &mut scan.stretches {
            let done = committed.get(&stretch.partition).map_or(stretch.from, |committed| committed.offset);
            stretch.from = stretch.from.max(done);
        }
        Ok(Self { name, group, policy, scan, settled, filter, earlier, words })
    }

    /// The originals that went back before: those of the letters that are settled.
    pub(super) async fn sent_before(&self) -> Result<Once, Error> {
        let mut once = Once::new(ONCE_LIMIT);
        let since_ms = self.earlier.as_ref().map(|earlier| earlier.since_ms).or(self.filter.since_ms);
        let filter = Filter { since_ms, ..self.filter.clone() };
        let mut parts = pin!(steps(self.settled.clone(), filter, self.policy.clone()));
        while let Some(part) = parts.next().await {
            let sent = part?.made.steps.into_iter().filter_map(|step| step.outcome.ok());
            sent.for_each(|Original { was, .. }| {
                once.is_first(&was.topic, was.partition, was.offset);
            });
        }
        Ok(once)
    }

    pub(super) fn steps(self) -> impl Stream<Item = Result<Part<Steps>, Error>> {
        steps(self.scan, self.filter, self.policy)
    }

    /// What is stored beside the offsets, for the next run of this name.
    pub(super) fn metadata(&self) -> String {
        let own = self.filter.since_ms.unwrap_or(0);
        let since_ms = self.earlier.as_ref().map_or(own, |earlier| earlier.since_ms.min(own));
        Earlier { since_ms, words: self.words.clone() }.to_string()
    }
}

impl Earlier {
    fn parse(metadata: &str) -> Option<Self> {
        let (since_ms, words) = metadata.strip_prefix(METADATA_VERSION)?.trim_start().split_once(';')?;
        Some(Self { since_ms: since_ms.parse().ok()?, words: words.to_owned() })
    }
}

impl std::fmt::Display for Earlier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{METADATA_VERSION} {};{}", self.since_ms, self.words)
    }
}

/// What decides which letters are sent where, in words: two runs with the same ones may share a name.
fn words(args: &RedriveArgs) -> String {
    let to = args.to.as_ref().map(|to| format!("--to {to}"));
    let words = [Some(args.filter.words()).filter(|words| !words.is_empty()), to];
    let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if words.len() > WORDS_MAX { format!("a long filter ({})", service::hash_id(&words)) } else { words }
}

/// Each filter has a progress of its own, so that one redrive never skips what another one left.
fn default_name(words: &str) -> String {
    if words.is_empty() {
        DEFAULT_NAME.to_owned()
    } else {
        format!("filter-{}", service::hash_id(words).trim_start_matches('#'))
    }
}

async fn policy(desk: &Desk, args: &RedriveArgs) -> Result<Policy, Error> {
    let to: Option<Arc<str>> = args.to.as_deref().map(Arc::from);
    let target = to.clone().unwrap_or_else(|| Arc::clone(&desk.topic));
    Ok(Policy {
        topic: Arc::clone(&desk.topic),
        dead_letter_topic: Arc::clone(&desk.dead_letter_topic),
        partitions: desk.client.topic(&target).await?.partition_count(),
        to,
        max_redrives: args.max_redrives,
        timestamps: args.timestamp,
    })
}

async fn committed(desk: &Desk, group: &str) -> Result<BTreeMap<TopicPartition, Committed>, Error> {
    let all = patiently(|| desk.client.committed_offsets(group, None)).await?;
    Ok(all.into_iter().filter(|(partition, _)| partition.topic == desk.dead_letter_topic).collect())
}

async fn end_at(desk: &Desk, mut scan: Scan, until_ms: i64) -> Result<Scan, Error> {
    let partitions: Vec<_> = scan.stretches.iter().map(|stretch| stretch.partition.clone()).collect();
    let spec = OffsetSpec::AtTimestamp(until_ms.saturating_add(1));
    let ends = offsets(&desk.client, &partitions, spec).await?;
    for stretch in &mut scan.stretches {
        stretch.end = ends.get(&stretch.partition).copied().unwrap_or(stretch.end).min(stretch.end);
    }
    Ok(scan)
}

async fn settled(
    desk: &Desk,
    filter: &Filter,
    earlier: &Option<Earlier>,
    committed: &BTreeMap<TopicPartition, Committed>,
) -> Result<Scan, Error> {
    let since_ms = earlier.as_ref().map(|earlier| earlier.since_ms).or(filter.since_ms);
    let mut scan = Scan::open(&desk.client, &desk.dead_letter_topic, &Filter { since_ms, ..filter.clone() }).await?;
    for stretch in &mut scan.stretches {
        let done = committed.get(&stretch.partition).map_or(Offset(0), |committed| committed.offset);
        stretch.end = stretch.end.min(done);
    }
    scan.stretches.retain(|stretch| stretch.from < stretch.end);
    Ok(scan)
}

fn steps(scan: Scan, filter: Filter, policy: Policy) -> impl Stream<Item = Result<Part<Steps>, Error>> {
    scan.parts(move |letters| {
        let now = now_ms();
        let mut made = Steps { filtered: 0, steps: Vec::new() };
        for found in letters {
            if filter.matches(&found) {
                let outcome = restore(&found, &policy, now);
                made.steps.push(Step { place: found.place, outcome });
            } else {
                made.filtered += 1;
            }
        }
        made
    })
}

/// For the line of a dry run: the key as its hash.
pub(super) fn shown_key(key: Option<&bytes::Bytes>) -> String {
    key.map_or_else(|| "-".to_owned(), |key| service::log_id(&key_text(key)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_beside_the_offsets_reads_back() {
        for words in ["", "--since 2h --reason undecodable --to t;u"] {
            let earlier = Earlier { since_ms: 17, words: words.to_owned() };
            assert_eq!(Earlier::parse(&earlier.to_string()), Some(earlier));
        }
        assert_eq!(Earlier::parse("v1;1795441689633"), None);
        assert_eq!(Earlier::parse(""), None);
    }

    #[test]
    fn each_filter_has_a_name_of_its_own() {
        assert_eq!(default_name(""), "all");
        assert_ne!(default_name("--since 2h"), default_name("--since 3h"));
        assert!(name(&default_name("--since 2h")).is_ok());
    }

    #[test]
    fn names_can_be_part_of_a_groups_name() {
        assert!(name("fix-42.a_b").is_ok());
        for wrong in ["", "a b", "a/b", "ä", &"n".repeat(151)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
