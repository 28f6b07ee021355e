//! The chat app behind `tidegate demo`: a page, a JSON chat, and the OpenAI and Anthropic APIs, answered by fixed rules
//! without any network, so that a newcomer sees the gate work with nothing else installed.

mod anthropic;
mod app;
mod assistant;
mod command;
mod openai;
mod paced;

pub use command::{DemoArgs, demo};

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Pause between two streamed tokens in the demo: slow enough to watch, quick enough to wait for.
pub const PACE: Duration = Duration::from_millis(30);

/// Serves the demo app (HTTP/1.1 and h2c) until `shutdown` resolves; open connections are then dropped, so stop the
/// gate in front of it first. Streams send one event per `pace`; zero sends them at once.
pub async fn serve(listener: TcpListener, pace: Duration, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors, most likely: wait for some to come back instead of spinning.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // A streamed token is one small write: without this, each would wait for the acknowledgement of the last.
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            let mut server = Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            server.http2().timer(TokioTimer::new());
            // A broken connection is the client's loss, not the demo's.
            let _ = server
                .serve_connection(TokioIo::new(stream), service_fn(move |request| app::serve(request, pace)))
                .await;
        });
    }
}

/// What `tidegate demo` prints: commands that work as they stand, with what each one shows.
pub fn what_to_try(proxy: SocketAddr, admin: SocketAddr) -> String {
    let json = "-H 'content-type: application/json'";
    let chat = r#"{"model":"demo-words","messages":[{"role":"user","content":"hello"}]}"#;
    let streamed = r#"{"model":"demo-words","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    format!(
        r#"Open http://{proxy}/ in a browser, or try:

  A chat message
    curl -s http://{proxy}/api/chat {json} -d '{{"message":"hello"}}'

  A streamed completion, as the OpenAI clients ask for it
    curl -sN http://{proxy}/v1/chat/completions {json} -d '{streamed}'

  A page on another site posts in a visitor's name: 403, origin_denied
    curl -s http://{proxy}/api/chat {json} -H 'origin: https://evil.example' -d '{{"message":"hello"}}'

  The same key twice, which two parsers would read differently: 400, invalid_json
    curl -s http://{proxy}/api/chat {json} -d '{{"message":"hello","message":"rm -rf"}}'

  The sixth AI call within a minute (the first two above count): 429, rate_limited
    for n in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\n' http://{proxy}/v1/chat/completions {json} -d '{chat}'; done

  What is left of your own limits, and what the gate has counted
    curl -s http://{proxy}/auth/rate-limit-status
    curl -s http://{admin}/metrics
"#
    )
}

#[cfg(test)]
mod tests;
