//! Whether what a member was assigned is still its own: asked before a write, by whoever writes.
//!
//! A process that was frozen goes on in the middle of a write that it had begun. Its commits are refused, but a sink
//! knows nothing of groups: so a writer asks its claim first, which looks at the clock and not at what was heard last.

use tokio::sync::watch;
use tokio::time::Instant;

/// How a member stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How often it has lost everything.
    pub(crate) losses: u64,
    /// When the coordinator may have given its partitions away, unless it is heard of before.
    pub(crate) until: Option<Instant>,
}

/// The right to work on what came with a [`crate::GroupEvent::Assigned`].
#[derive(Debug, Clone)]
pub struct Claim {
    losses: u64,
    standing: watch::Receiver<Standing>,
}

impl Claim {
    pub(crate) fn new(standing: &watch::Sender<Standing>) -> Self {
        let standing = standing.subscribe();
        let losses = standing.borrow().losses;
        Self { losses, standing }
    }

    /// Whether the partitions are ours at this moment. (One that is being handed back is, until it is handed back.)
    pub fn holds(&self) -> bool {
        let standing = *self.standing.borrow();
        standing.losses == self.losses && standing.until.is_none_or(|until| Instant::now() < until)
    }

    /// Returns as soon as the claim holds: mostly at once, and never when everything was lost meanwhile; the reader is
    /// told so by [`crate::GroupEvent::Lost`].
    pub async fn held(&self) {
        let mut standing = self.standing.clone();
        while !self.holds() {
            if standing.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waits(claim: &Claim) -> bool {
        use futures::FutureExt;
        claim.held().now_or_never().is_none()
    }

    #[tokio::test]
    async fn a_claim_ends_with_the_session_and_holds_again_when_the_coordinator_is_heard_of() {
        let standing = watch::Sender::new(Standing::default());
        let claim = Claim::new(&standing);
        assert!(claim.holds(), "nothing bounds it");
        let later = Some(Instant::now() + Duration::from_secs(60));
        standing.send_replace(Standing { losses: 0, until: later });
        assert!(claim.holds());
        standing.send_replace(Standing { losses: 0, until: Some(Instant::now()) });
        assert!(!claim.holds() && waits(&claim), "the clock alone ends it");
        standing.send_replace(Standing { losses: 0, until: later });
        assert!(claim.holds() && !waits(&claim));
    }

    #[tokio::test]
    async fn what_was_lost_is_not_ours_again_by_joining_anew() {
        let standing = watch::Sender::new(Standing::default());
        let claim = Claim::new(&standing);
        standing.send_replace(Standing { losses: 1, until: None });
        assert!(!claim.holds() && waits(&claim));
        assert!(Claim::new(&standing).holds(), "what came later is another claim");
    }
}
