//! The upstream of the side-by-side measurement: one thread, fixed answers, so that only the proxies differ.
//!
//! `bench_upstream LISTEN` answers
//! - `GET /page`: 2 KiB of HTML,
//! - `POST /v1/chat/completions`: 200 server-sent events, one a millisecond, then `[DONE]`, as a fast model would,
//! - any other POST: 300 bytes of JSON that say how long the body was, so that a cut body is noticed.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Events in a stream, `[DONE]` not counted.
const EVENTS: u32 = 200;
/// Between two events. Without a pause the kernel would merge them, and the slower a proxy reads, the fewer it would get.
const PACE: Duration = Duration::from_millis(1);
/// Bytes in the answer to a POST.
const ANSWER: usize = 300;
/// Bytes in the page.
const PAGE: usize = 2048;

/// A paced stream of chat completion chunks.
struct Events {
    sent: u32,
    pace: Interval,
}

impl Events {
    fn new() -> Self {
        let mut pace = interval(PACE);
        // After a delay, later events are late too: catching up would send several in one write.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { sent: 0, pace }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > EVENTS {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(context));
        self.sent += 1;
        let event = if self.sent > EVENTS {
            Bytes::from_static(b"data: [DONE]\n\n")
        } else {
            Bytes::from(format!(
                "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
                 \"model\":\"bench\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{:03}\"}},\
                 \"finish_reason\":null}}]}}\n\n",
                self.sent
            ))
        };
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

/// Chat's answer: exactly [`ANSWER`] bytes, whatever the number.
fn answer(received: usize) -> Bytes {
    let head = format!("{{\"received\":{received},\"reply\":\"");
    let text = "The tide gate opens at low water and closes by itself. ";
    let reply = text.chars().cycle().take(ANSWER - head.len() - 2);
    Bytes::from(head.chars().chain(reply).chain("\"}".chars()).collect::<String>())
}

fn page() -> Bytes {
    let mut page = String::from("<!doctype html><html lang=\"en\"><title>Bench</title><body>");
    while page.len() < PAGE - "</body></html>".len() {
        page.push(if page.len() % 64 == 0 { '\n' } else { 'x' });
    }
    page.push_str("</body></html>");
    Bytes::from(page)
}

fn respond(kind: &'static str, body: BoxBody<Bytes, Infallible>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn serve(
    request: Request<Incoming>,
    page: Bytes,
) -> hyper::Result<Response<BoxBody<Bytes, Infallible>>> {
    if request.method() == Method::GET && request.uri().path() == "/page" {
        return Ok(respond("text/html; charset=utf-8", Full::new(page).boxed()));
    }
    if request.method() != Method::POST {
        let mut response = respond("text/plain", Full::default().boxed());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let streamed = request.uri().path() == "/v1/chat/completions";
    let mut body = request.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, Bytes::len);
    }
    if !streamed {
        return Ok(respond("application/json", Full::new(answer(received)).boxed()));
    }
    let mut response = respond("text/event-stream", Events::new().boxed());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).ok_or("usage: bench_upstream LISTEN")?;
    let listener = TcpListener::bind(&listen).await?;
    let page = page();
    loop {
        let (stream, _) = listener.accept().await?;
        // Without it, Nagle's algorithm would merge the events that the pace keeps apart.
        stream.set_nodelay(true)?;
        let page = page.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service_fn(move |request| serve(request, page.clone())));
        tokio::spawn(async move {
            // A proxy that closes an idle connection is no failure of the upstream.
            let _ = connection.await;
        });
    }
}
