use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Mutex as StdMutex, MutexGuard};

use serde_json::Value;

use crate::guard::Reason;

use super::*;

const NOON: Timestamp = Timestamp::from_micros(1_709_208_000_000_000);
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Page(Arc<StdMutex<Vec<u8>>>);

impl Page {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl writer::Target for Page {}

fn combined() -> AccessFormat {
    "combined".to_owned().try_into().unwrap()
}

/// A pattern with every variable, each in quotes.
fn everything() -> AccessFormat {
    let pattern: String = Variable::ALL.iter().map(|variable| format!("\"${}\"", variable.name())).collect();
    pattern.try_into().unwrap()
}

struct Desk {
    observer: Observer,
    access: Page,
    events: Page,
}

fn desk(format: AccessFormat) -> Desk {
    let (access, events) = (Page::default(), Page::default());
    let sink = |page: &Page| -> Option<writer::Sink> { Some(Box::new(page.clone())) };
    let observer = Observer::with_sinks(format, sink(&access), sink(&events), NOON).unwrap();
    Desk { observer, access, events }
}

impl Desk {
    fn close(&self) -> (String, String) {
        assert!(self.observer.close(LIMIT));
        (self.access.text(), self.events.text())
    }

    fn metrics(&self) -> String {
        self.observer.metrics().render(&self.observer.snapshot(NOON)).unwrap()
    }
}

pub(super) fn record<'a>() -> Record<'a> {
    Record {
        at: NOON,
        method: &Method::POST,
        path: "/v1/chat/completions",
        query: None,
        keys: KeyNames::default(),
        host: "chat.example",
        version: Version::HTTP_11,
        status: Some(StatusCode::OK),
        bytes_in: 1200,
        bytes_out: 345,
        duration: Duration::from_micros(12_345),
        upstream_duration: None,
        client_address: [203, 0, 113, 7].into(),
        user: Some(SubjectId(0x0123_4567_89ab_cdef << 64)),
        session: None,
        device: None,
        route: None,
        upstream: None,
        retries: 0,
        fallback: None,
        traffic: Traffic::Ai,
        carriage: Carriage::Exchange,
        refusal: None,
        noted: &[],
        seen: None,
        request_id: "0123456789abcdef0123456789abcdef",
        user_agent: Some(b"curl/8.5.0"),
        referer: None,
        model: None,
    }
}

fn one_line(log: &str) -> Value {
    assert_eq!(log.matches('\n').count(), 1, "{log}");
    serde_json::from_str(log).unwrap()
}

/// What an operator's log pipeline is built on: names and units of the fields.
#[test]
fn an_access_line_says_it_all() {
    let desk = desk(AccessFormat::Json);
    let route = desk.observer.metrics().route("chat");
    let upstream = desk.observer.metrics().upstream("ollama");
    let refusal = Refusal::new(Reason::UpstreamTimeout, "too slow", "");
    desk.observer.record(&Record {
        route: Some(&route),
        upstream: Some(&upstream),
        upstream_duration: Some(Duration::from_millis(7)),
        query: Some("key=s3cret&alt=sse"),
        refusal: Some(&refusal),
        referer: Some(b"https://a.example/?token=s3cret"),
        model: Some("gpt-4o"),
        ..record()
    });
    let line = one_line(&desk.close().0);
    let expected = serde_json::json!({
        "ts": "2024-02-29T12:00:00.000Z", "client_address": "203.0.113.7", "method": "POST", "host": "chat.example",
        "path": "/v1/chat/completions", "query": "key=[redacted]&alt=sse", "version": "HTTP/1.1", "status": 200,
        "bytes_in": 1200, "bytes_out": 345, "duration_ms": 12.345, "upstream": "ollama", "upstream_ms": 7.0,
        "route": "chat", "traffic": "ai", "carriage": "exchange", "reason": "upstream_timeout",
        "user": "0123456789abcdef", "model": "gpt-4o", "request_id": "0123456789abcdef0123456789abcdef",
        "user_agent": "curl/8.5.0", "referer": "https://a.example/?token=[redacted]",
    });
    assert_eq!(line, expected);
}

/// A key's place that only the operator knows to be one is as secret in every format.
#[test]
fn what_is_said_to_carry_a_key_is_masked_in_every_format() {
    let names = ["customer".into()];
    let pattern = "$request_uri $args $request $http_referer".to_owned().try_into().unwrap();
    for format in [AccessFormat::Json, combined(), pattern] {
        let desk = desk(format);
        let keys = KeyNames::of(&names);
        let referer = Some(&b"https://a.example/?customer=s3cret"[..]);
        desk.observer.record(&Record { query: Some("customer=s3cret&a=1"), keys, referer, ..record() });
        let (access, events) = desk.close();
        assert!(access.contains("customer=[redacted]&a=1") && !access.contains("s3cret"), "{access}");
        assert!(!events.contains("s3cret"), "{events}");
    }
}

/// Tools that read Apache and nginx logs must read ours.
#[test]
fn a_combined_line_is_what_log_tools_expect() {
    let desk = desk(combined());
    desk.observer.record(&Record { query: Some("a=1"), ..record() });
    desk.observer.record(&Record {
        user: None,
        user_agent: None,
        status: None,
        version: Version::HTTP_2,
        ..record()
    });
    assert_eq!(
        desk.close().0,
        "203.0.113.7 - 0123456789abcdef [29/Feb/2024:12:00:00 +0000] \"POST /v1/chat/completions?a=1 HTTP/1.1\" 200 345 \
         \"-\" \"curl/8.5.0\"\n\
         203.0.113.7 - - [29/Feb/2024:12:00:00 +0000] \"POST /v1/chat/completions HTTP/2.0\" 0 345 \"-\" \"-\"\n"
    );
}

/// Whoever moves from nginx keeps the log format, and the tools that read it.
#[test]
fn a_line_of_an_own_format_is_as_the_pattern_says() {
    let pattern = "$remote_addr $status $request_time/$upstream_response_time \"$request_uri\" $host $msec $reason $route";
    let desk = desk(pattern.to_owned().try_into().unwrap());
    let refusal = Refusal::new(Reason::UpstreamTimeout, "too slow", "");
    let took = Some(Duration::from_millis(7));
    let query = Some("key=s3cret&alt=sse");
    desk.observer.record(&Record { refusal: Some(&refusal), upstream_duration: took, query, ..record() });
    assert_eq!(
        desk.close().0,
        "203.0.113.7 200 0.012/0.007 \"/v1/chat/completions?key=[redacted]&alt=sse\" chat.example 1709208000.000 \
         upstream_timeout -\n"
    );
    assert!(AccessFormat::try_from("combinde".to_owned()).is_err());
}

/// A watcher is paged by these: the fields, and that failures which are nobody's misbehaviour raise nothing.
#[test]
fn a_refusal_raises_its_event_and_a_failure_none() {
    let desk = desk(AccessFormat::Json);
    let agent = "a".repeat(500);
    for reason in [Reason::RateLimited, Reason::UpstreamFailed] {
        let refusal = Refusal::new(reason, "5 a minute are allowed.", "limits.ai");
        desk.observer.record(&Record {
            refusal: Some(&refusal),
            user_agent: Some(agent.as_bytes()),
            session: Some(SubjectId(1 << 64)),
            device: Some(SubjectId(2 << 64)),
            ..record()
        });
    }
    let event = one_line(&desk.close().1);
    let expected = serde_json::json!({
        "ts": "2024-02-29T12:00:00.000Z", "event": "RATE_LIMIT_EXCEEDED", "reason": "rate_limited",
        "detail": "5 a minute are allowed.", "client_address": "203.0.113.7", "user": "0123456789abcdef",
        "session": "0000000000000001", "device": "0000000000000002", "method": "POST", "host": "chat.example",
        "path": "/v1/chat/completions", "request_id": "0123456789abcdef0123456789abcdef", "user_agent": "a".repeat(200),
    });
    assert_eq!(event, expected);
    let metrics = desk.metrics();
    assert!(metrics.contains("tidegate_events_total{event=\"RATE_LIMIT_EXCEEDED\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("tidegate_refusals_total{reason=\"upstream_failed\",route=\"none\"} 1\n"),
        "{metrics}"
    );
}

/// An API key that passes through must not be findable anywhere: not in a log, an event, or a metric.
#[test]
fn a_canary_in_any_field_is_found_in_no_output() {
    for canary in [
        "sk-canary-0123456789abcdef",
        "AIzaSyCanary0123456789abcdefghijklmnopq",
        "0c4a7a12fe93bb20815d7c6ea0d94f11",
    ] {
        for format in [AccessFormat::Json, combined(), everything()] {
            let desk = desk(format);
            let (path, query) = (format!("/v1/{canary}/x"), format!("q={canary}&key={canary}"));
            let (referer, agent) =
                (format!("https://a.example/{canary}?token={canary}"), format!("x/1 ({canary})"));
            let refusal = Refusal::new(Reason::InvalidJson, format!("Incorrect key: Bearer {canary}."), "");
            let key_as_id = if canary.starts_with('0') { "id" } else { canary };
            let method = Method::from_bytes(canary.as_bytes()).unwrap();
            desk.observer.record(&Record {
                method: &method,
                path: &path,
                query: Some(&query),
                host: canary,
                refusal: Some(&refusal),
                request_id: key_as_id,
                user_agent: Some(agent.as_bytes()),
                referer: Some(referer.as_bytes()),
                model: Some(canary),
                ..record()
            });
            let (access, events) = desk.close();
            for output in [access, events, desk.metrics()] {
                assert!(!output.contains(canary), "{output}");
            }
        }
    }
}

/// A client that can break a line can forge one.
#[test]
fn no_field_breaks_out_of_its_line() {
    let evil = "a\"b\\c\r\n{\"forged\":1}\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}\u{e0041}\0é";
    let refusal = Refusal::new(Reason::InvalidPath, evil.to_owned(), "");
    for format in [AccessFormat::Json, combined(), everything()] {
        let desk = desk(format.clone());
        let bytes: Vec<u8> = [evil.as_bytes(), &[0xff, 0xfe, 0x80]].concat();
        desk.observer.record(&Record {
            path: evil,
            query: Some(evil),
            host: evil,
            request_id: evil,
            user_agent: Some(&bytes),
            referer: Some(&bytes),
            refusal: Some(&refusal),
            ..record()
        });
        let (access, events) = desk.close();
        for log in [&access, &events] {
            assert_eq!(log.matches('\n').count(), 1);
            let hidden = |symbol: char| symbol.is_control() || "\u{2028}\u{202e}\u{e0041}".contains(symbol);
            assert!(!log.trim_end_matches('\n').contains(hidden), "{log}");
        }
        if format == AccessFormat::Json {
            // Escaped, not lost.
            assert_eq!(one_line(&access)["path"], evil);
        } else {
            let quotes = if format == combined() { 6 } else { 2 * Variable::ALL.len() };
            assert_eq!(access.matches('"').count(), quotes, "{access}");
        }
        assert_eq!(one_line(&events)["detail"], evil);
    }
}

/// A client must not be able to fill a disk, or the queue, with one request.
#[test]
fn lines_are_bounded_whatever_is_sent() {
    let long = "\u{1}".repeat(100_000);
    let refusal = Refusal::new(Reason::InvalidPath, long.clone(), "");
    for format in [AccessFormat::Json, combined(), everything()] {
        let desk = desk(format);
        desk.observer.record(&Record {
            path: &long,
            query: Some(&long),
            host: &long,
            request_id: &long,
            user_agent: Some(long.as_bytes()),
            referer: Some(long.as_bytes()),
            model: Some(&long),
            refusal: Some(&refusal),
            ..record()
        });
        let (access, events) = desk.close();
        assert!(access.len() < 64_000 && events.len() < 24_000, "{} {}", access.len(), events.len());
    }
}

/// A client that can invent labels can fill the memory of whoever scrapes.
#[test]
fn no_client_can_invent_a_series() {
    let desk = desk(AccessFormat::Json);
    let route = desk.observer.metrics().route("chat");
    let count = |text: &str| text.lines().filter(|line| line.starts_with("tidegate_requests_total{")).count();
    for n in 0..500u16 {
        let method = Method::from_bytes(format!("EVIL{n}").as_bytes()).unwrap();
        let text = format!("/{n}");
        let status = StatusCode::from_u16(100 + n % 900).ok();
        let evil =
            Record { method: &method, path: &text, host: &text, status, model: Some(&text), ..record() };
        desk.observer.record(&Record { route: Some(&route), ..evil });
    }
    let metrics = desk.metrics();
    assert_eq!(count(&metrics), 5, "{metrics}");
    assert!(metrics.contains(
        "tidegate_requests_total{method=\"other\",route=\"chat\",status_class=\"2xx\",traffic=\"ai\"} 100\n"
    ));
    // A route that is built again at a reload goes on counting where it was.
    desk.observer.record(&Record { route: Some(&desk.observer.metrics().route("chat")), ..record() });
    assert_eq!(count(&desk.metrics()), 6);
    assert_eq!(desk.observer.snapshot(NOON).requests, 501);
}

/// Every standard method and traffic class lands in its own series: a slip in the arithmetic would mix them silently.
#[test]
fn each_combination_has_its_own_series() {
    let desk = desk(AccessFormat::Json);
    let mut expected = BTreeSet::new();
    for (traffic, name) in [(Traffic::Page, "page"), (Traffic::Api, "api"), (Traffic::Ai, "ai")] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
            for (status, class) in [
                (None, "none"),
                (Some(200), "2xx"),
                (Some(302), "3xx"),
                (Some(404), "4xx"),
                (Some(502), "5xx"),
            ] {
                let status = status.map(|status| StatusCode::from_u16(status).unwrap());
                let parsed = Method::from_bytes(method.as_bytes()).unwrap();
                desk.observer.record(&Record { method: &parsed, status, traffic, ..record() });
                expected.insert(format!(
                    "tidegate_requests_total{{method=\"{method}\",route=\"none\",status_class=\"{class}\",traffic=\"{name}\"}} 1"
                ));
            }
        }
    }
    let metrics = desk.metrics();
    let found: BTreeSet<_> = metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_requests_total{"))
        .map(str::to_owned)
        .collect();
    assert_eq!(found, expected);
}

/// Prometheus drops a whole scrape for one malformed line.
#[test]
fn the_exposition_parses_line_by_line() {
    let desk = desk(AccessFormat::Json);
    let route = desk.observer.metrics().route("a \"strange\"\\name\nindeed");
    let refusal = Refusal::new(Reason::RateLimited, "", "");
    desk.observer.metrics().guard("cors").observe(1e-6);
    desk.observer.record(&Record { route: Some(&route), refusal: Some(&refusal), ..record() });
    desk.observer.record(&Record { noted: std::slice::from_ref(&refusal), ..record() });
    let text = desk.metrics();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# ") {
            families.insert(help.split(' ').nth(1).unwrap().to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        assert!(!series.contains('{') || series.ends_with('}'), "{line}");
    }
    for family in [
        "requests_total",
        "refusals_total",
        "observed_refusals_total",
        "request_duration_seconds",
        "in_flight",
        "connections",
        "connections_total",
        "connections_refused_total",
        "bytes_total",
        "guard_duration_seconds",
        "events_total",
        "log_dropped_total",
        "panics_total",
        "limit_subjects",
        "open_admissions",
        "settle_total",
        "settle_retries_total",
        "settle_queued",
        "heads_abandoned_total",
        "build_info",
    ] {
        assert!(families.contains(&format!("tidegate_{family}")), "{family} is missing");
    }
    assert!(
        families.contains("process_cpu_seconds_total") && families.contains("process_start_time_seconds")
    );
}

/// Counters that others own must neither fall at a scrape nor count twice.
#[test]
fn totals_of_others_are_taken_over_once() {
    let desk = desk(AccessFormat::Json);
    for settled in [5, 5, 9, 3] {
        let mut snapshot = desk.observer.snapshot(NOON);
        snapshot.state.settled = settled;
        desk.observer.metrics().render(&snapshot).unwrap();
    }
    assert!(desk.metrics().contains("tidegate_settle_total 9\n"));
}

/// A connection that is forgotten, or counted twice, would shut the door for good or never.
#[test]
fn connections_are_counted_until_they_are_dropped() {
    let desk = desk(AccessFormat::Json);
    let open: Vec<_> = (0..40).map(|_| desk.observer.metrics().connection_opened()).collect();
    let counts = desk.observer.snapshot(NOON).connections;
    assert_eq!((counts.total, counts.active), (40, 40));
    assert!(counts.oldest_age > Duration::ZERO);
    drop(open);
    let counts = desk.observer.snapshot(NOON).connections;
    assert_eq!((counts.total, counts.active, counts.oldest_age), (40, 0, Duration::ZERO));
}

/// A log that silently goes nowhere is found out on the day it is needed.
#[test]
fn a_target_that_cannot_be_opened_is_an_error_that_names_it() {
    let config = ObserverConfig {
        access: LogTarget::File("/nonexistent/access.log".into()),
        access_format: AccessFormat::Json,
        events: LogTarget::Off,
    };
    let Err(error) = Observer::start(&config, NOON) else { panic!("opened") };
    assert!(error.to_string().contains("/nonexistent/access.log for the access log"), "{error}");
    let target = |text: &str| serde_json::from_value::<LogTarget>(text.into());
    assert_eq!(target("stdout").unwrap(), LogTarget::Stdout);
    assert_eq!(target("./a.log").unwrap(), LogTarget::File("./a.log".into()));
    assert!(target("sdtout").is_err());
}

/// Restarting must not wipe the log of what led to it.
#[test]
fn a_file_is_appended_to() {
    let directory = std::env::temp_dir().join(format!("tidegate-observe-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("access.log");
    let config = ObserverConfig {
        access: LogTarget::File(path.clone()),
        access_format: combined(),
        events: LogTarget::Off,
    };
    for _ in 0..2 {
        let observer = Observer::start(&config, NOON).unwrap();
        observer.record(&record());
        assert!(observer.close(LIMIT));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    std::fs::remove_dir_all(directory).unwrap();
}
