//! The relay: brings an answer to the client piece by piece, each as soon as it comes.
//!
//! One loop reads, writes and waits. So an answer is read only as fast as the client takes it, and no more of it than a
//! piece is ever held.

use std::pin::pin;

use bytes::Bytes;
use http::response;
use hyper::body::Frame;
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::{Error, ErrorType};

use super::exchange::{Ended, Terms};
use super::keep::Keeper;
use super::pace::{Due, Pace};
use super::stream::Stream;
use super::watch::{Gone, Watch};
use crate::guard::{Reason, Refusal};
use crate::server::Alarm;
use crate::upstream::Answer;

/// What comes next.
enum Turn {
    Frame(Option<Result<Frame<Bytes>, hyper::Error>>),
    Due(Due),
    Drain,
}

/// An answer on its way to a client.
pub struct Relay<'a> {
    pub session: &'a mut ServerSession,
    pub watch: &'a mut Watch,
    pub alarm: &'a mut Alarm,
    pub terms: &'a Terms<'a>,
    pub pace: Pace,
    /// Set if the answer is a stream of events.
    pub stream: Option<Stream>,
    /// Set if the answer is to be kept.
    pub keeper: Option<&'a mut Keeper>,
}

impl Relay<'_> {
    /// Sends the head, then what comes of the body.
    pub async fn run(&mut self, head: response::Parts, mut answer: Answer) -> Ended {
        let bodiless = answer.is_end();
        let head = Box::new(ResponseHeader::from(head));
        let sent = match bodiless {
            true => self.send(HttpTask::Header(head, bodiless)).await,
            false => self.send_head(head).await,
        };
        match sent {
            Err(Gone) => return Ended::ClientGone,
            Ok(()) if bodiless => return Ended::Served,
            Ok(()) => {}
        }
        let mut drain = pin!(self.terms.stop.streams_end());
        loop {
            let between_events = self.stream.as_ref().is_some_and(Stream::at_border);
            if between_events && self.pace.is_over() {
                return Box::pin(self.stop(Due::Total.refusal())).await;
            }
            let turn = tokio::select! {
                biased;
                frame = answer.frame() => Turn::Frame(frame),
                halted = self.watch.gone(self.session) => return halted.into(),
                due = self.pace.due(between_events, self.alarm) => Turn::Due(due),
                () = drain.as_mut(), if between_events => Turn::Drain,
            };
            let (piece, last) = match turn {
                Turn::Frame(None) => (Bytes::new(), true),
                Turn::Frame(Some(Err(error))) => {
                    return Ended::Truncated(because("the upstream broke off", error));
                }
                Turn::Frame(Some(Ok(frame))) => {
                    self.pace.heard();
                    match frame.into_data() {
                        Ok(data) => (self.pass(data), answer.is_end()),
                        Err(frame) => {
                            let trailers = frame.into_trailers().ok().map(Box::new);
                            return match self.send(HttpTask::Trailer(trailers)).await {
                                Ok(()) => Ended::Served,
                                Err(Gone) => Ended::ClientGone,
                            };
                        }
                    }
                }
                Turn::Due(Due::Heartbeat) => match self.stream.as_mut().and_then(Stream::heartbeat) {
                    Some(comment) => {
                        self.terms.metrics.heartbeat();
                        (comment, false)
                    }
                    None => continue,
                },
                Turn::Due(due) if self.stream.is_some() => return Box::pin(self.stop(due.refusal())).await,
                Turn::Due(_) => return truncated("the upstream fell silent"),
                Turn::Drain => return Box::pin(self.stop(draining())).await,
            };
            match self.write(piece, last).await {
                Err(Gone) => return Ended::ClientGone,
                Ok(()) if last => return Ended::Served,
                Ok(()) => {}
            }
        }
    }

    fn pass(&mut self, piece: Bytes) -> Bytes {
        if let Some(keeper) = &mut self.keeper {
            keeper.piece(&piece);
        }
        match &mut self.stream {
            Some(stream) => stream.pass(piece),
            None => piece,
        }
    }

    /// Ends a stream: in good order with an event that says why, or, within an event, by breaking it off.
    async fn stop(&mut self, why: Refusal) -> Ended {
        let last = self.stream.as_ref().and_then(|stream| stream.last_event(&why, &self.terms.reader));
        let whole = last.is_some();
        match last {
            Some(event) => match self.write(event, true).await {
                Ok(()) => Ended::Stopped { why, whole },
                Err(Gone) => Ended::ClientGone,
            },
            None => Ended::Stopped { why, whole },
        }
    }

    async fn write(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        let written = pin!(self.session.write_response_body(piece, last));
        match self.alarm.within(|| self.pace.write_deadline(), written).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }

    async fn send_head(&mut self, head: Box<ResponseHeader>) -> Result<(), Gone> {
        let sent = pin!(self.session.write_response_header(head));
        match self.alarm.within(|| self.pace.write_deadline(), sent).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }

    /// Sends what ends an answer; in a box, since what most answers need is smaller.
    async fn send(&mut self, task: HttpTask) -> Result<(), Gone> {
        let sent = Box::pin(self.session.response_duplex_vec(vec![task]));
        match self.alarm.within(|| self.pace.write_deadline(), sent).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }
}

impl Due {
    /// Why a stream ends.
    fn refusal(self) -> Refusal {
        match self {
            Due::Total => Refusal::new(
                Reason::StreamTotal,
                "The stream has lasted as long as one may.",
                "timeouts.stream_total",
            ),
            Due::Silence | Due::Heartbeat => Refusal::new(
                Reason::StreamIdle,
                "The upstream fell silent in its stream.",
                "timeouts.stream_idle",
            ),
        }
    }
}

fn draining() -> Refusal {
    Refusal::new(Reason::Draining, "The gate is being stopped; try again.", "drain")
}

fn truncated(why: &'static str) -> Ended {
    Ended::Truncated(Error::explain(ErrorType::ReadTimedout, why).into_up())
}

fn because(why: &'static str, error: hyper::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, why, error).into_up()
}
