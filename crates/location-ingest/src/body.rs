//! Reads a request's body within its limits of size and time. A body that comes in one piece is neither copied nor counted.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::limits::Limits;
use crate::problem::Problem;

/// A client that sends too much gets its answer only if it can finish: this much more is read and thrown away.
const DISCARD_MAX: usize = 1 << 20;

/// The bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// The whole body.
pub(crate) async fn read(mut body: Incoming, bounds: Bounds, limits: &Limits) -> Result<Bytes, Problem> {
    let result =
        within(bounds.time, gather(&mut body, bounds.bytes, limits)).await.unwrap_or(Err(Problem::BodyTooSlow));
    if matches!(result, Err(Problem::BodyTooLarge { .. } | Problem::TooManyBytesInFlight)) {
        let _ = within(bounds.time, discard(&mut body)).await;
    }
    result
}

/// A time limit that costs no timer when the work is done at once, as it is for nearly every body.
async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    match poll_fn(|poller| Poll::Ready(work.as_mut().poll(poller))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(limit, work).await.ok(),
    }
}

async fn gather(body: &mut Incoming, limit: usize, limits: &Limits) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::BodyTooLarge { limit });
    }
    let first = next(body).await?.unwrap_or_default();
    if body.is_end_stream() && first.len() <= limit {
        return Ok(first);
    }
    let mut whole = BytesMut::new();
    let mut held = limits.body();
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        if whole.len() + bytes.len() > limit {
            return Err(Problem::BodyTooLarge { limit });
        }
        if !held.grow(bytes.len()) {
            return Err(Problem::TooManyBytesInFlight);
        }
        whole.extend_from_slice(&bytes);
        piece = next(body).await?;
    }
    Ok(whole.freeze())
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing that is wanted here.
        if let Ok(data) = frame.map_err(|_| Problem::BodyIncomplete)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn discard(body: &mut Incoming) {
    let mut discarded = 0;
    while discarded < DISCARD_MAX
        && let Ok(Some(bytes)) = next(body).await
    {
        discarded += bytes.len();
    }
}
