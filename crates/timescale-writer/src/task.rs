//! What the subcommands do, and what they say on stdout.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use kafka::{Client, Committed, Offset, OffsetSpec, PartitionId, TopicMetadata, TopicPartition};

use crate::command::{Command, EraseArgs, OffsetsCommand, SetArgs, Target};
use crate::error::Error;
use crate::replay::{self, Move, View};
use crate::timescale::{Database, OffsetsById, Owner, TopicId, Upkeep, check_schema};

/// What a task works on.
pub(crate) struct Task {
    pub(crate) database: Arc<Database>,
    pub(crate) kafka: Client,
    pub(crate) group: String,
    pub(crate) topic: String,
}

impl Task {
    pub(crate) async fn run(self, command: Command) -> Result<(), Error> {
        check_schema(&self.database).await?;
        match command {
            Command::Offsets(OffsetsCommand::Show) => self.show().await,
            Command::Offsets(OffsetsCommand::Set(args)) => self.set(args).await,
            Command::Erase(args) => self.erase(args).await,
        }
    }

    async fn erase(self, EraseArgs { driver, yes }: EraseArgs) -> Result<(), Error> {
        confirm("Remove all rows of this driver from the history?", yes).await?;
        let removed = self.done(self.upkeep().await?.erase(driver.as_str()).await)?;
        tracing::info!(driver = %service::log_id(driver.as_str()), removed, "driver erased from the history");
        say(&format!("{removed} rows removed\n"))
    }

    async fn show(self) -> Result<(), Error> {
        let stored = self.done(self.upkeep().await?.offsets(&self.group, &self.topic).await)?;
        let topic = self.kafka.topic(&self.topic).await?;
        let partitions = topic.topic_partitions();
        let committed = self.kafka.committed_offsets(&self.group, Some(&partitions)).await?;
        let committed = committed.into_iter().map(|(place, committed)| (place.partition.0, committed)).collect();
        let logs = self.logs(&partitions).await?;
        say(&table(&TopicId(topic.topic_id).to_string(), &stored, &committed, &logs))
    }

    async fn set(self, args: SetArgs) -> Result<(), Error> {
        let topic = self.kafka.topic(&self.topic).await?;
        self.refuse_live_members().await?;
        if args.truncate_from.is_some() {
            confirm("Remove rows from the history, to be read again from Kafka?", args.yes).await?;
        }
        let views = self.views(&topic, &args).await?;
        let owner = Owner { group: self.group.clone(), topic: self.topic.clone(), topic_id: TopicId(topic.topic_id) };
        let (moves, removed) = self.set_stored(&owner, views, &args).await?;
        self.set_committed(&moves).await;
        let mut text = String::new();
        for Move { partition, to, .. } in &moves {
            let _ = writeln!(text, "partition {partition}: goes on at offset {to}");
        }
        if args.truncate_from.is_some() {
            let _ = writeln!(text, "{removed} rows removed");
        }
        say(&text)
    }

    /// In one transaction. Should a writer start meanwhile, its own transaction is fenced by the offsets that moved.
    async fn set_stored(&self, owner: &Owner, mut views: Vec<View>, args: &SetArgs) -> Result<(Vec<Move>, u64), Error> {
        let upkeep = self.upkeep().await?;
        self.done(upkeep.lock(owner).await)?;
        if let Some(time) = args.truncate_from
            && let Some(other) = self.done(upkeep.other_than(owner).await)?
        {
            return Err(Error::Refused(format!(
                "--truncate-from {time}: {}: the table holds rows of {other} as well, and rows do not say whose they are; \
                 if those may go, delete its offsets from driver_location_offsets first",
                self.database.address()
            )));
        }
        let mut stored = self.done(upkeep.offsets(&owner.group, &owner.topic).await)?;
        let stored = stored.remove(&owner.topic_id.to_string()).unwrap_or_default();
        views.iter_mut().for_each(|view| view.stored = stored.get(&view.partition).copied());
        let moves = replay::plan(&views, args.truncate_from).map_err(Error::Refused)?;
        let removed = match args.truncate_from {
            Some(time) => self.done(upkeep.truncate(time.0).await)?,
            None => 0,
        };
        self.done(upkeep.set(owner, &moves).await)?;
        Ok((moves, removed))
    }

    /// For the tools: the table has decided already, and the writer repeats it when it starts.
    async fn set_committed(&self, moves: &[Move]) {
        let place = |partition| TopicPartition::new(self.topic.as_str(), PartitionId(partition));
        let positions: Vec<_> = moves.iter().map(|one| (place(one.partition), one.to, String::new())).collect();
        if let Err(error) = self.kafka.alter_offsets(&self.group, &positions).await {
            tracing::warn!(%error, "the offsets are set in the database; Kafka shows them when the writer has started");
        }
    }

    async fn refuse_live_members(&self) -> Result<(), Error> {
        let described = self.kafka.describe_groups(&[&self.group]).await?;
        let members: Vec<_> = described.iter().flat_map(|group| &group.members).collect();
        let Some(first) = members.first() else { return Ok(()) };
        let (group, count, host) = (&self.group, members.len(), &first.client_host);
        Err(Error::Refused(format!(
            "group {group} has live members ({count}, one of them {} at {host}): stop them first",
            first.client_id
        )))
    }

    async fn views(&self, topic: &TopicMetadata, args: &SetArgs) -> Result<Vec<View>, Error> {
        let mut partitions = topic.topic_partitions();
        if let Some(missing) = args.partitions.iter().find(|id| !partitions.iter().any(|p| p.partition.0 == **id)) {
            return Err(Error::Refused(format!("--partitions {missing}: topic {} has no such partition", self.topic)));
        }
        partitions.retain(|one| args.partitions.is_empty() || args.partitions.contains(&one.partition.0));
        let logs = self.logs(&partitions).await?;
        let at_target = match args.to {
            Some(Target::Time(time)) => self.at(&partitions, OffsetSpec::AtTimestamp(time.0)).await?,
            _ => BTreeMap::new(),
        };
        let cuts = match args.truncate_from {
            Some(time) => self.at(&partitions, OffsetSpec::AtTimestamp(time.0)).await?,
            None => BTreeMap::new(),
        };
        let views = logs.into_iter().map(|(partition, log)| View {
            partition,
            stored: None,
            log,
            wanted: args.to.and_then(|to| replay::fixed(to, log).or_else(|| at_target.get(&partition).copied())),
            cut: cuts.get(&partition).copied(),
        });
        Ok(views.collect())
    }

    async fn logs(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<i32, (Offset, Offset)>, Error> {
        let first = self.at(partitions, OffsetSpec::Earliest).await?;
        let end = self.at(partitions, OffsetSpec::Latest).await?;
        let both = first.into_iter().filter_map(|(partition, first)| Some((partition, (first, *end.get(&partition)?))));
        Ok(both.collect())
    }

    async fn at(&self, partitions: &[TopicPartition], spec: OffsetSpec) -> Result<BTreeMap<i32, Offset>, Error> {
        let listed = self.kafka.list_offsets(partitions, spec).await?;
        listed.into_iter().map(|(place, listed)| Ok((place.partition.0, listed?.offset))).collect()
    }

    async fn upkeep(&self) -> Result<Upkeep, Error> {
        self.done(Upkeep::begin(&self.database).await)
    }

    fn done<T>(&self, result: Result<T, crate::timescale::Fault>) -> Result<T, Error> {
        result.map_err(|fault| fault.of_task(&self.database))
    }
}

/// One line for each partition; those of an earlier topic of the name are told apart.
fn table(
    topic_id: &str,
    stored: &OffsetsById,
    committed: &BTreeMap<i32, Committed>,
    logs: &BTreeMap<i32, (Offset, Offset)>,
) -> String {
    let mut text = format!("{:>9}  {:>12}  {:>12}  {:>25}  note\n", "partition", "stored", "Kafka", "log");
    let shown = |offset: Option<Offset>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    for (partition, (first, end)) in logs {
        let kept = stored.get(topic_id).and_then(|partitions| partitions.get(partition));
        let in_kafka = committed.get(partition).map(|committed| committed.offset);
        let note = match (kept.map(|kept| kept.next), in_kafka) {
            (Some(stored), Some(other)) if stored != other => "differs in Kafka; the database decides",
            _ if kept.is_some_and(|kept| kept.kept.is_some_and(|window| window.until > kept.next)) => "is read again",
            _ => "",
        };
        let (kept, in_kafka) = (shown(kept.map(|kept| kept.next)), shown(in_kafka));
        let line = format!("{partition:>9}  {kept:>12}  {in_kafka:>12}  {:>25}  {note}", format!("{first}..{end}"));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (id, partitions) in stored.iter().filter(|(id, _)| *id != topic_id) {
        let count = partitions.len();
        let _ = writeln!(text, "{count} partitions of an earlier topic of this name, id {id}");
    }
    text
}

/// Asks on the terminal, unless the answer was given beforehand.
async fn confirm(question: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Unconfirmed);
    }
    let mut stderr = io::stderr();
    // Without a terminal to show it on, the answer cannot be a yes.
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let answer = tokio::task::spawn_blocking(|| io::stdin().lines().next().and_then(Result::ok)).await;
    let agreed = answer.ok().flatten().is_some_and(|line| ["y", "yes"].contains(&line.trim().to_lowercase().as_str()));
    if agreed { Ok(()) } else { Err(Error::Refused("not confirmed: nothing was changed".to_owned())) }
}

fn say(text: &str) -> Result<(), Error> {
    // A reader that closed early (`| head`) is no fault.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}
