//! The question before something is sent or removed.

use std::io::{self, IsTerminal, Write as _};

use crate::error::Error;

/// Asks on the terminal, unless the answer was given beforehand.
///
/// # Errors
/// The answer is not a yes, or there is nobody to be asked.
pub(super) async fn confirm(question: &str, yes: bool) -> Result<(), Error> {
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
