//! Which rows of a batch does the database refuse for their content? Found by halving, inside a transaction that is
//! never committed.

use event::DriverLocation;
use pipeline::{Batch, Refused};
use tokio_postgres::Error;

use super::database::{Connection, Database};
use super::fault::Fault;
use super::{BEGIN, Numbered, copy_in, numbered};

/// Deferred constraints would speak only at COMMIT, of the batch as a whole.
const CHECK_AT_ONCE: &str = "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT kept";
const KEEP: &str = "RELEASE SAVEPOINT kept; SAVEPOINT kept";
const UNDO: &str = "ROLLBACK TO SAVEPOINT kept";

/// What became of a stretch of rows.
enum Verdict {
    Taken,
    Refused(Fault),
}

/// Finds the refused rows, in their order. What the database takes stays in the transaction while the rest is looked
/// at, so that a row that only contradicts an earlier one of its batch is found too. Without the refused rows the batch
/// will be taken as a whole.
///
/// # Errors
/// The database's own trouble.
pub(super) async fn find(database: &Database, batch: &Batch<DriverLocation>) -> Result<Vec<Refused>, Fault> {
    let rows = numbered(batch);
    // Each step has the usual limit; the number of steps is bounded by twice the number of rows.
    let session = database.open_for_search().await?;
    database.within_timeout(session.client().batch_execute(BEGIN)).await?;
    database.within_timeout(session.client().batch_execute(CHECK_AT_ONCE)).await?;
    let mut refused = Vec::new();
    let mut stretches = vec![rows.as_slice()];
    while let Some(stretch) = stretches.pop() {
        match offer(database, &session, stretch).await? {
            Verdict::Taken => {}
            Verdict::Refused(fault) => match stretch {
                [] => {}
                [row] => refused.push(row.refused(&fault)),
                _ => {
                    let (first, second) = stretch.split_at(stretch.len() / 2);
                    stretches.extend([second, first]);
                }
            },
        }
    }
    Ok(refused)
}

async fn offer(database: &Database, session: &Connection, stretch: &[Numbered<'_>]) -> Result<Verdict, Fault> {
    let client = session.client();
    let copied = copy_in(client, session.copy(), stretch.iter().map(|row| row.event));
    match database.within_timeout(copied).await {
        Ok(_) => settle(database, client.batch_execute(KEEP), Verdict::Taken).await,
        Err(fault) if fault.is_about_data() => {
            settle(database, client.batch_execute(UNDO), Verdict::Refused(fault)).await
        }
        Err(fault) => Err(fault),
    }
}

async fn settle(
    database: &Database,
    step: impl Future<Output = Result<(), Error>>,
    verdict: Verdict,
) -> Result<Verdict, Fault> {
    database.within_timeout(step).await.map(|()| verdict)
}
