//! Bodies that come compressed, inflated piece by piece and never beyond their limit.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::header::{self, HeaderMap};

use crate::limits::Limits;
use crate::problem::Problem;

const CHUNK_BYTES: usize = 16 << 10;
/// Other connections get their turn after so many bytes: a large body is a millisecond's work and more.
const YIELD_EVERY: usize = 256 << 10;
/// 8 MiB, what RFC 9659 asks of everyone who takes zstd over HTTP: a frame must not decide how much memory it gets.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A content coding (RFC 9110).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

/// The coding of a request's body, None for as it is.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let (value, others) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let name = value.as_bytes().trim_ascii();
    let is = |coding: &str| name.eq_ignore_ascii_case(coding.as_bytes());
    match () {
        // Codings on top of each other are allowed by the RFC, sent by nobody, and a way to build bombs.
        () if others.is_some() => Err(Problem::UnsupportedContentEncoding),
        () if name.is_empty() || is("identity") => Ok(None),
        () if is("gzip") || is("x-gzip") => Ok(Some(Coding::Gzip)),
        () if is("deflate") => Ok(Some(Coding::Deflate)),
        () if is("zstd") => Ok(Some(Coding::Zstd)),
        () => Err(Problem::UnsupportedContentEncoding),
    }
}

/// The body as it was before it was compressed, of at most `limit` bytes.
pub(crate) async fn inflate(coding: Coding, body: &Bytes, limit: usize, limits: &Limits) -> Result<Bytes, Problem> {
    let mut reader = reader(coding, body)?;
    let mut held = limits.body();
    let (mut whole, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = reader.read(&mut chunk).map_err(|_| Problem::MalformedEncoding)?;
        if read == 0 {
            return Ok(whole.into());
        }
        if whole.len() + read > limit {
            return Err(Problem::BodyTooLarge { limit });
        }
        if !held.grow(read) {
            return Err(Problem::TooManyBytesInFlight);
        }
        let before = whole.len() / YIELD_EVERY;
        whole.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if whole.len() / YIELD_EVERY > before {
            tokio::task::yield_now().await;
        }
    }
}

fn reader<'a>(coding: Coding, body: &'a Bytes) -> Result<Box<dyn Read + Send + 'a>, Problem> {
    let body: &[u8] = body;
    Ok(match coding {
        Coding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Coding::Deflate if has_zlib_header(body) => Box::new(ZlibDecoder::new(body)),
        // What the name suggests and the RFC does not mean; browsers and phones send both.
        Coding::Deflate => Box::new(DeflateDecoder::new(body)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| Problem::MalformedEncoding)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| Problem::MalformedEncoding)?;
            Box::new(decoder)
        }
    })
}

/// RFC 1950: method 8, and the two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;
    use proptest::prelude::*;
    use service::parse;

    use super::*;
    use crate::{Args, INFO};

    const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    fn limits() -> Limits {
        Limits::new(&parse::<Args>(&INFO, ["location-ingest"]).unwrap())
    }

    fn deflate(coding: Coding, body: &[u8]) -> Bytes {
        match coding {
            Coding::Gzip => {
                let mut out = GzEncoder::new(Vec::new(), Compression::default());
                out.write_all(body).unwrap();
                out.finish().unwrap().into()
            }
            Coding::Deflate => {
                let mut out = ZlibEncoder::new(Vec::new(), Compression::default());
                out.write_all(body).unwrap();
                out.finish().unwrap().into()
            }
            Coding::Zstd => zstd::encode_all(body, 3).unwrap().into(),
        }
    }

    fn inflated(coding: Coding, body: &Bytes, limit: usize) -> Result<Bytes, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(inflate(coding, body, limit, &limits()))
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let body = b"[1,2,3] ".repeat(100_000);
        for coding in CODINGS {
            assert_eq!(inflated(coding, &deflate(coding, &body), body.len()).unwrap(), body, "{coding:?}");
        }
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&body).unwrap();
        assert_eq!(inflated(Coding::Deflate, &raw.finish().unwrap().into(), body.len()).unwrap(), body);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 32 << 20];
        for coding in CODINGS {
            let bomb = deflate(coding, &zeros);
            assert!(bomb.len() < 64 << 10);
            assert_eq!(inflated(coding, &bomb, 1 << 20), Err(Problem::BodyTooLarge { limit: 1 << 20 }), "{coding:?}");
        }
    }

    #[test]
    fn truncated_and_foreign_bodies_are_malformed() {
        for coding in CODINGS {
            let whole = deflate(coding, b"a position");
            for wrong in [whole.slice(..whole.len() - 1), Bytes::from_static(b"plain text")] {
                assert_eq!(inflated(coding, &wrong, 1 << 20), Err(Problem::MalformedEncoding), "{coding:?}");
            }
        }
    }

    #[test]
    fn codings_are_read_from_the_header() {
        let of = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_static(value)));
            coding(&headers.collect())
        };
        assert_eq!((of(&[]), of(&["identity"])), (Ok(None), Ok(None)));
        assert_eq!(
            (of(&["GZIP"]), of(&[" deflate "]), of(&["zstd"])),
            (Ok(Some(Coding::Gzip)), Ok(Some(Coding::Deflate)), Ok(Some(Coding::Zstd)))
        );
        for wrong in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"]] {
            assert_eq!(of(wrong), Err(Problem::UnsupportedContentEncoding), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, coding in prop::sample::select(CODINGS.to_vec())) {
            let _ = inflated(coding, &body.into(), 1 << 16);
        }
    }
}
