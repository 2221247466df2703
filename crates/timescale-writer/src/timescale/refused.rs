//! Which rows of a batch does the database refuse for their content? Found by halving, inside a transaction that is
//! never committed.

use event::DriverLocation;
use pipeline::{Batch, Refused};
use tokio_postgres::Client;

use super::database::{Connection, Database};
use super::fault::Fault;
use super::offsets::{Claim, Numbered};
use super::{BEGIN, copy_in};

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
pub(super) async fn find(
    database: &Database,
    batch: &Batch<DriverLocation>,
    claim: &Claim,
) -> Result<Vec<Refused>, Fault> {
    let rows: Vec<_> = claim.rows(batch).collect();
    // Each step has the usual limit; the number of steps is bounded by twice the number of rows.
    let connection = database.lease().await?;
    database.limited(run(connection.client(), BEGIN)).await?;
    database.limited(run(connection.client(), CHECK_AT_ONCE)).await?;
    let mut refused = Vec::new();
    let mut stretches = vec![rows.as_slice()];
    while let Some(stretch) = stretches.pop() {
        match offer(database, &connection, stretch).await? {
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

async fn offer(database: &Database, connection: &Connection, stretch: &[Numbered<'_>]) -> Result<Verdict, Fault> {
    let client = connection.client();
    let copy = copy_in(client, connection.copy(), stretch.iter().map(|row| row.event));
    let (step, verdict) = match database.limited(copy).await {
        Ok(_) => (KEEP, Verdict::Taken),
        Err(fault) if fault.is_about_data() => (UNDO, Verdict::Refused(fault)),
        Err(fault) => return Err(fault),
    };
    database.limited(run(client, step)).await?;
    Ok(verdict)
}

async fn run(client: &Client, statement: &str) -> Result<(), Fault> {
    Ok(client.batch_execute(statement).await?)
}
