//! `export`: letters as JSON lines, whole, with the driver's id and position. For repair by hand, see `import`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::pin::pin;

use futures::StreamExt;

use super::Desk;
use crate::error::Error;
use crate::filter::FilterArgs;
use crate::jsonl;
use crate::moment::now_ms;
use crate::scan::Scan;

/// What to write, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Which letters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// File to write [default: standard output]
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

pub(super) async fn run(desk: &Desk, args: ExportArgs) -> Result<(), Error> {
    let filter = args.filter.filter(now_ms());
    let scan = Scan::open(&desk.client, &desk.dead_letter_topic, &filter).await?;
    let parts = scan.parts(move |letters| {
        letters
            .filter(|found| filter.matches(found))
            .map(|found| format!("{}\n", jsonl::export(&found)))
            .collect::<Vec<_>>()
    });
    let failed = |error: io::Error| match &args.file {
        Some(path) => Error::File(format!("--file {}: cannot be written ({error})", path.display())),
        None => Error::File(format!("standard output cannot be written ({error})")),
    };
    let mut out: Box<dyn Write + Send> = match &args.file {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(failed)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let (mut parts, mut written) = (pin!(parts), 0_u64);
    while let Some(part) = parts.next().await {
        for line in part?.made {
            match out.write_all(line.as_bytes()) {
                // A reader that closed early (`| head`) is no fault.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(failed)?,
            }
            written += 1;
        }
    }
    out.flush().map_err(failed)?;
    tracing::info!(letters = written, "exported");
    Ok(())
}
