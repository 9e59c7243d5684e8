//! Answers in gzip, as the reference gives them: large ones, to who takes them so.
//!
//! Invariant: what is compressed passes in pieces; beyond one piece and the encoder's
//! window nothing of an answer is held that was not held before.

use std::convert::Infallible;
use std::io::Write as _;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};

/// Answers of so many bytes or fewer go out as they are.
const MIN_BYTES: usize = 128 * 1024;
/// Bytes that are compressed before the thread is given to others.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether the client takes gzip.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let refused = |part: &str| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
            parts.next() == Some("gzip") && !parts.any(refused)
        })
}

/// The answer in gzip where it is large, else as it is.
pub(crate) async fn answer(response: Response) -> Response {
    let size = response.body().size_hint();
    let small = size.exact().is_some_and(|bytes| bytes <= MIN_BYTES as u64);
    if small || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let mut rest = body.into_data_stream();
    let mut first = BytesMut::new();
    while first.len() <= MIN_BYTES {
        match rest.next().await {
            Some(Ok(piece)) => first.extend_from_slice(&piece),
            Some(Err(error)) => {
                let broken = stream::once(async move { Err::<Bytes, _>(error) });
                return Response::from_parts(parts, Body::from_stream(broken));
            }
            None => return Response::from_parts(parts, Body::from(first.freeze())),
        }
    }
    parts.headers.remove(CONTENT_LENGTH);
    parts
        .headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts
        .headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let packer = Packer {
        encoder: GzEncoder::new(Vec::new(), Compression::fast()),
        pending: first.freeze(),
        rest,
        over: false,
    };
    let pieces = stream::unfold(packer, |mut packer| async move {
        let piece = packer.next().await?;
        Some((Ok::<_, Infallible>(piece), packer))
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

struct Packer {
    encoder: GzEncoder<Vec<u8>>,
    pending: Bytes,
    rest: BodyDataStream,
    over: bool,
}

impl Packer {
    /// The next compressed bytes. An answer that breaks ends without gzip's trailer, so
    /// that the client sees that it is not whole.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            if self.pending.is_empty() {
                match self.rest.next().await {
                    Some(Ok(piece)) => self.pending = piece,
                    Some(Err(_)) => return None,
                    None => {
                        self.over = true;
                        self.encoder.try_finish().ok()?;
                    }
                }
            }
            let piece = self.pending.split_to(self.pending.len().min(PIECE_BYTES));
            self.encoder.write_all(&piece).ok()?;
            let packed = std::mem::take(self.encoder.get_mut());
            if !packed.is_empty() {
                return Some(packed.into());
            }
            tokio::task::yield_now().await;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn wants(header: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(header));
        is_wanted(&headers)
    }

    #[test]
    fn gzip_is_for_who_names_it() {
        assert!(wants("gzip") && wants("deflate, gzip;q=0.5"));
        assert!(!wants("identity") && !wants("gzip;q=0") && !is_wanted(&HeaderMap::new()));
    }

    async fn whole(body: Body) -> Vec<u8> {
        let mut pieces = body.into_data_stream();
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece.expect("it does not break"));
        }
        all
    }

    #[tokio::test]
    async fn a_large_answer_is_packed_in_pieces_and_unpacks_to_itself() {
        let text: Vec<u8> = (0..60_000u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        let chunks: Vec<_> = text
            .chunks(10_000)
            .map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk)))
            .collect();
        let packed = answer(Response::new(Body::from_stream(stream::iter(chunks)))).await;
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let packed = whole(packed.into_body()).await;
        assert!(packed.len() < text.len() / 2);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_end(&mut unpacked)
            .expect("gzip");
        assert_eq!(unpacked, text);
    }

    #[tokio::test]
    async fn a_small_answer_goes_out_as_it_is() {
        for body in [
            Body::from("short"),
            Body::from_stream(stream::iter([Ok::<_, Infallible>("short")])),
        ] {
            let answered = answer(Response::new(body)).await;
            assert!(!answered.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(whole(answered.into_body()).await, b"short");
        }
    }
}
