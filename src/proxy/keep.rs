//! Keeps an answer while it streams through, for whoever repeats the call by its `Idempotency-Key` (D2); and gives it again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, response};

use super::reply::Reply;
use crate::state::claim::KeptAnswer;

/// Tells a client that this answer was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What was kept so far of an answer.
#[derive(Debug)]
pub struct Keeper {
    max: usize,
    head: Option<KeptAnswer>,
    body: BytesMut,
}

impl Keeper {
    /// Keeps an answer of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, head: None, body: BytesMut::new() }
    }

    /// Keeps the head as the upstream gave it: what the gate adds depends on who asks.
    pub fn head(&mut self, head: &response::Parts) {
        let of_connection = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];
        let fields = head.headers.iter().filter(|(name, _)| !of_connection.contains(name));
        let headers = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect();
        self.head = Some(KeptAnswer { status: head.status.as_u16(), headers, body: Bytes::new() });
    }

    /// Keeps a piece of the body; nothing at all, if that is more than may be kept.
    pub fn piece(&mut self, piece: &[u8]) {
        if self.head.is_some() && self.body.len() + piece.len() <= self.max {
            self.body.extend_from_slice(piece);
        } else {
            self.head = None;
            self.body = BytesMut::new();
        }
    }

    /// The whole answer, if it was kept.
    pub fn finish(self) -> Option<Arc<KeptAnswer>> {
        let body = self.body.freeze();
        self.head.map(|head| Arc::new(KeptAnswer { body, ..head }))
    }
}

/// A kept answer, to be dressed like the upstream's; `None` if it is none that could be sent.
pub fn again(answer: &KeptAnswer) -> Option<Reply> {
    let status = StatusCode::from_u16(answer.status).ok()?;
    let field = |(name, value): &(Box<str>, Box<[u8]>)| {
        Some((name.parse().ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut headers = answer.headers.iter().map(field).collect::<Option<Vec<_>>>()?;
    headers.push((REPLAYED.clone(), HeaderValue::from_static("true")));
    Some(Reply { status, headers, body: answer.body.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> response::Parts {
        let answer = http::Response::builder().status(201).header("content-length", "9").header("x-a", "1");
        answer.body(()).expect("an answer").into_parts().0
    }

    /// Half an answer must never be given for a whole one.
    #[test]
    fn an_answer_is_kept_whole_or_not_at_all() {
        let kept = |max, pieces: &[&str]| {
            let mut keeper = Keeper::new(max);
            keeper.head(&head());
            pieces.iter().for_each(|piece| keeper.piece(piece.as_bytes()));
            keeper.finish()
        };
        assert_eq!(kept(6, &["abc", "def"]).expect("it fits").body, "abcdef");
        assert!(kept(5, &["abc", "def"]).is_none());
        assert!(kept(5, &["abcdef", "g"]).is_none());
        assert!(Keeper::new(9).finish().is_none());
    }

    /// What belongs to the first connection would break the second.
    #[test]
    fn it_is_given_again_with_its_own_fields() {
        let mut keeper = Keeper::new(9);
        keeper.head(&head());
        keeper.piece(b"abc");
        let reply = again(&keeper.finish().expect("kept")).expect("sound");
        let fields: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (reply.status.as_u16(), &*reply.body, &*fields),
            (201, &b"abc"[..], &["x-a", "idempotent-replayed"][..])
        );
    }
}
