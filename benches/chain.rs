//! What the gate itself costs on a 1.2 KB chat POST, without sockets: hygiene, path, client, routing, head guards, both
//! transactions, the walk through the body, the rewriting of the head, the dressing of the answer. Target: 6 µs.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Version};
use tidegate::config::{Config, Overrides, Settings};
use tidegate::guard::body::Syntax;
use tidegate::guard::chain::Timers;
use tidegate::guard::limits::Drawer;
use tidegate::guard::mode::Noted;
use tidegate::guard::security_headers::Author;
use tidegate::guard::{Head, Traffic, hygiene};
use tidegate::observe::metrics::Metrics;
use tidegate::proxy::Told;
use tidegate::proxy::api::recognise;
use tidegate::proxy::client::Claims;
use tidegate::proxy::path::{NormalPath, split_target};
use tidegate::state::{Clock, Demand, Store, Timestamp};

const RAW: &[u8] = b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36\r\nAccept: application/json\r\nAccept-Language: \
en-GB,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\nContent-Type: application/json\r\nAuthorization: Bearer \
bench-key-0123456789\r\nOrigin: http://127.0.0.1:8080\r\nSec-Fetch-Site: same-origin\r\nCookie: session_id=abcdef\r\n\
Content-Length: 1200\r\n\r\n";

fn headers() -> HeaderMap {
    let text = std::str::from_utf8(RAW).expect("ascii");
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let parse = |(name, value): (&str, &str)| {
        (name.parse().expect("name"), HeaderValue::from_str(value).expect("value"))
    };
    fields.map(parse).collect::<Vec<(http::HeaderName, HeaderValue)>>().into_iter().collect()
}

fn body() -> Vec<u8> {
    let text = "The quick brown fox jumps over the lazy dog, and then asks the model what it thinks of it. "
        .repeat(11);
    let message = serde_json::json!({"model": "m", "messages": [
        {"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}], "stream": false});
    message.to_string().into_bytes()
}

fn settings() -> Settings {
    let huge = "{windows: [1000000000/min]}";
    let names = ["pages", "api", "api-user", "session", "tenant", "ai"];
    let limits: String = names.iter().map(|name| format!("  {name}: {huge}\n")).collect();
    let text = format!("upstream: http://127.0.0.1:9\nlimits:\n{limits}");
    let config = Config::from_text(&text, "bench", &Overrides::default(), &|_| None).expect("config");
    config.resolve(&Clock::system()).expect("settings")
}

fn chain(c: &mut Criterion) {
    let settings = settings();
    let metrics = Metrics::new(Timestamp::default()).expect("metrics");
    let timers = Timers::new(&metrics);
    let (headers, body) = (headers(), body());
    let peer: SocketAddr = "127.0.0.1:50000".parse().expect("peer");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let request_id = HeaderValue::from_static("0123456789abcdef");
    c.bench_function("chat POST through the chain", |b| {
        b.iter(|| {
            let mut noted = Noted::new();
            hygiene::check_raw_head(black_box(RAW), &settings.hygiene).expect("hygiene");
            let (path, _) = split_target(b"/api/chat");
            let path = NormalPath::parse(path, &settings.paths).expect("path");
            let authority = Some("127.0.0.1:8080");
            let claims = Claims { peer, tls: false, authority, query: None, headers: &headers };
            let client = settings.client.decide(&claims);
            let route = settings.route(&client.tenant, path.as_str(), &Method::POST).expect("route");
            let api = recognise(&Method::POST, path.as_str(), false);
            let head = Head {
                method: &Method::POST,
                version: Version::HTTP_11,
                path: path.as_str(),
                query: None,
                headers: &headers,
                authority,
                client: &client,
                traffic: Traffic::Ai,
                upgrade: false,
            };
            route.guards.check_head(&head, &timers, &mut noted).expect("head");
            let drawer = Drawer::of(&head, &settings.client, &route.name, false);
            for draws in [route.guards.limits.head_draws(&drawer), route.guards.limits.body_draws(&drawer)] {
                let demand = Demand::draws(draws.as_slice());
                assert!(runtime.block_on(settings.store.admit(&demand)).expect("store").is_granted());
            }
            route
                .guards
                .check_body(
                    black_box(&body),
                    Syntax { json: true, ..Syntax::default() },
                    api,
                    &timers,
                    &mut noted,
                )
                .expect("body");
            let mut forwarded = headers.clone();
            let told = Told {
                client: &client,
                authority,
                upstream: route.upstream.host(),
                request_id: &request_id,
                websocket: false,
            };
            route.guards.forwarding.request(&mut forwarded, &told);
            let (mut answer, ()) = http::Response::new(()).into_parts();
            answer.headers.insert("content-type", HeaderValue::from_static("application/json"));
            route.guards.dress(&mut answer, Author::Upstream, &client, None);
            black_box((forwarded, answer));
        });
    });
}

criterion_group!(benches, chain);
criterion_main!(benches);
