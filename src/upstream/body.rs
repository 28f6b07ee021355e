//! The body of a request to an upstream: whole, or still arriving.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A request's body.
#[derive(Debug)]
pub enum RequestBody {
    /// All of it is there, or was until it was sent.
    Whole(Bytes),
    /// More comes, piece by piece.
    Arriving {
        /// What comes.
        pieces: mpsc::Receiver<Piece>,
        /// Bytes that are still to come, where that is known.
        left: Option<u64>,
    },
}

/// What comes of a body.
#[derive(Debug)]
pub enum Piece {
    /// More of it.
    Data(Bytes),
    /// Its end. Without one, the body is broken off, and so is the connection to the upstream.
    End,
}

impl RequestBody {
    /// A body that is sent as fast as the upstream takes it; `length` in bytes, where it is known.
    pub fn arriving(length: Option<u64>) -> (mpsc::Sender<Piece>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        (sender, Self::Arriving { pieces, left: length })
    }

    /// All of it, if it is there.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Arriving { .. } => None,
        }
    }
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for RequestBody {
    fn from(whole: Bytes) -> Self {
        Self::Whole(whole)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Self::Arriving { pieces, left } => pieces.poll_recv(cx).map(|piece| match piece {
                Some(Piece::Data(data)) => {
                    *left = left.map(|left| left.saturating_sub(data.len() as u64));
                    Some(Ok(Frame::data(data)))
                }
                Some(Piece::End) => None,
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Arriving { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Self::Arriving { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
