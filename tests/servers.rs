//! Several servers an upstream: who gets a request, who is left alone, and what of a name, a socket or a certificate.

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    Answer, Ask, BlackHole, Gate, NameServer, OK_JSON, Scratch, Upstream, Via, assert_refused, gate,
    unreachable, within,
};
use futures_util::future::join_all;
use pingora::tls::{ServerConfig, TlsAcceptor};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What is exchanged, and what passes through.
fn both() -> [Ask; 2] {
    let websocket = Ask::get("/live")
        .field("connection", "upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    [Ask::get("/"), websocket]
}

fn urls(servers: &[SocketAddr]) -> String {
    servers.iter().map(|server| format!("http://{server}")).collect::<Vec<_>>().join(", ")
}

/// A gate in front of several servers.
fn gate_of(servers: &[SocketAddr], defaults: &str) -> Gate {
    let all = format!("upstream: [{}]\nupstream_defaults: {{{defaults}}}\n", urls(servers));
    gate(servers[0], &all)
}

async fn ask(gate: &Gate, ask: &Ask) -> Answer {
    gate.ask(Via::H1, ask).await
}

#[track_caller]
fn assert_ok(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Waits until the metrics say that a server is up, or is not.
async fn until_up(gate: &Gate, server: SocketAddr, up: bool) {
    let line = format!("tidegate_upstream_up{{server=\"{server}\",upstream=\"default\"}} {}", u8::from(up));
    within(&line, async {
        while !gate.admin_ask(&Ask::get("/metrics")).await.text().contains(&line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Three servers are paid for: each must do its third of the work, whichever way the requests travel.
#[tokio::test(flavor = "multi_thread")]
async fn requests_take_turns() {
    for kind in both() {
        let servers = [Upstream::ok().await, Upstream::ok().await, Upstream::ok().await];
        let gate = gate_of(&servers.each_ref().map(Upstream::address), "");
        for _ in 0..9 {
            assert_ok(&ask(&gate, &kind).await);
        }
        assert_eq!(servers.each_ref().map(|server| server.requests().len()), [3, 3, 3], "{}", kind.target);
    }
}

/// A server that works on a long answer must not be given the next request while another one is idle.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_server_is_asked() {
    for kind in both() {
        let ((slow, asked, go), idle) = (Upstream::on_cue().await, Upstream::ok().await);
        let gate = gate_of(&[slow.address(), idle.address()], "balance: least-connections");
        let held = async {
            assert_ok(&ask(&gate, &kind).await);
        };
        let others = async {
            within("the slow server is asked", asked.notified()).await;
            for _ in 0..5 {
                assert_ok(&ask(&gate, &kind).await);
            }
            let counts = (slow.requests().len(), idle.requests().len());
            go.notify_one();
            assert_eq!(counts, (1, 5), "{}", kind.target);
        };
        tokio::join!(held, others);
        // A request leaves its server a moment after its client has the answer.
        within("nothing in use", async {
            loop {
                let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
                let in_use = text.lines().filter(|line| line.starts_with("tidegate_upstream_connections{"));
                if in_use.clone().count() == 2 && in_use.clone().all(|line| line.ends_with(" 0")) {
                    break;
                }
            }
        })
        .await;
    }
}

/// A conversation must stay where its context is warm; a server that dies must move its own conversations only.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_with_its_server() {
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        servers.push(Upstream::named(name).await);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(Upstream::address).collect();
    let gate = gate_of(&addresses, "balance: {hash: session}");
    let place = async |session: usize| {
        let answer = ask(&gate, &Ask::get("/").field("x-session-id", format!("session-{session}"))).await;
        assert_ok(&answer);
        answer.text()
    };
    let mut usual = BTreeMap::new();
    for session in 0..24 {
        usual.insert(session, place(session).await);
        assert_eq!(place(session).await, usual[&session], "session {session}");
    }
    let used = |name: &str| usual.values().filter(|place| *place == name).count();
    assert!(["a", "b", "c"].iter().all(|name| used(name) > 1), "{usual:?}");
    drop(servers.remove(0));
    gate.forget_draws();
    for (session, before) in &usual {
        let now = place(*session).await;
        assert_eq!(now == *before, before != "a", "session {session}: {before} {now}");
    }
}

/// One dead server of two must not cost a single request, and soon not even a try.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_skipped() {
    for kind in both() {
        let (dead, well) = (unreachable().await, Upstream::ok().await);
        let gate = gate_of(&[dead, well.address()], "");
        for _ in 0..8 {
            assert_ok(&ask(&gate, &kind).await);
        }
        assert_eq!(well.requests().len(), 8);
        until_up(&gate, dead, false).await;
        let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
        assert!(health.contains("degraded") && health.contains(&dead.to_string()), "{health}");
        gate.advance(Duration::from_secs(11));
        until_up(&gate, dead, true).await;
    }
}

/// A server whose packets vanish must cost its share of the connect time, not the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_black_holed_server_is_passed_over() {
    let hole = BlackHole::dig().await;
    let address = hole.address;
    for kind in both() {
        let well = Upstream::ok().await;
        let gate = gate_of(&[address, well.address()], "connect_timeout: 600ms");
        for _ in 0..8 {
            assert_ok(&ask(&gate, &kind).await);
        }
        until_up(&gate, address, false).await;
        let alone = gate_of(&[address], "connect_timeout: 200ms");
        assert_refused(&ask(&alone, &kind).await, 504, "upstream_timeout");
    }
}

/// A server that takes requests and says nothing costs each of its callers the whole wait: a few of them must be enough to
/// know it by, and none of that is a reason to refuse those whom the others could serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_left_alone() {
    const STRICT: &str = "timeouts: {first_byte: 200ms}\nretries: off\nlimits: {pages: off, tenant: off}\n\
        breaker: {consecutive_failures: 4, min_calls: 6, error_ratio: 0.4}\n";
    for kind in both() {
        let silent = Upstream::scripted(|mut peer| async move {
            peer.request().await;
            peer.ends().await;
        })
        .await;
        let well = Upstream::ok().await;
        let list = urls(&[silent.address(), well.address()]);
        let gate = gate(well.address(), &format!("upstream: [{list}]\n{STRICT}"));
        // All at once, so that the breaker hears of their failures one after another.
        let answers = join_all((0..24).map(|_| ask(&gate, &kind))).await;
        let late = answers.iter().filter(|answer| answer.status == 504).count();
        assert_eq!((late, silent.requests().len()), (12, 12), "{}", kind.target);
        until_up(&gate, silent.address(), false).await;
        for _ in 0..6 {
            assert_ok(&ask(&gate, &kind).await);
        }
        assert_eq!(silent.requests().len(), 12, "{}", kind.target);
        let metrics = gate.admin_ask(&Ask::get("/metrics")).await.text();
        assert!(metrics.contains(r#"tidegate_breaker_state{upstream="default"} 0"#), "{}", kind.target);
        let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
        assert!(health.contains(&format!("{} is not well", silent.address())), "{health}");
    }
}

/// A machine that vanishes leaves its connections behind, and an upload that it does not take is no fault of the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_upload_is_left_alone() {
    let deaf = Upstream::scripted(|mut peer| async move {
        peer.head().await;
        std::future::pending().await
    })
    .await;
    let well = Upstream::ok().await;
    let list = urls(&[deaf.address(), well.address()]);
    let settings = format!("upstream: [{list}]\ntimeouts: {{write: 300ms}}\nuploads: {{part: 50MiB}}\n");
    let gate = gate(well.address(), &settings);
    let upload = Ask::new("POST", "/upload").field("content-type", "text/csv").body(vec![b'a'; 16 << 20]);
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(ask(&gate, &upload).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 3, "{statuses:?}");
    until_up(&gate, deaf.address(), false).await;
}

/// With all servers down the caller is told, after each was tried, and once only.
#[tokio::test(flavor = "multi_thread")]
async fn all_servers_are_tried_before_a_502() {
    for kind in both() {
        let rude = || Upstream::scripted(|peer| async { drop(peer) });
        let servers = [rude().await, rude().await, rude().await];
        let list = servers.each_ref().map(|server| format!("https://{}", server.address())).join(",");
        let settings =
            format!("upstream: '{list}'\nretries: off\nupstream_defaults: {{tls: {{verify: false}}}}\n");
        let gate = gate(servers[0].address(), &settings);
        for _ in 0..5 {
            assert_refused(&ask(&gate, &kind).await, 502, "upstream_unreachable");
        }
        assert_eq!(servers.each_ref().map(Upstream::connections), [5, 5, 5], "{}", kind.target);
        let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
        assert!(health.contains("No server of upstream default is well."), "{health}");
    }
}

/// What reached a server that then broke off must not be sent to another: it may be a paid call.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_arrived_is_sent_once() {
    for kind in both() {
        let breaking = Upstream::scripted(|mut peer| async move { drop(peer.request().await) }).await;
        let well = Upstream::ok().await;
        let gate = gate_of(&[breaking.address(), well.address()], "");
        assert_refused(&ask(&gate, &kind).await, 502, "upstream_failed");
        assert_eq!((breaking.requests().len(), well.requests().len()), (1, 0));
    }
}

/// A server that says itself that it is not well must get no requests until it says that it is.
#[tokio::test(flavor = "multi_thread")]
async fn health_checks_take_a_server_out_and_back() {
    let ill = Arc::new(AtomicBool::new(true));
    let says = ill.clone();
    let server = Upstream::scripted(move |mut peer| {
        let says = says.clone();
        async move {
            while let Some(request) = peer.request().await {
                let ill = says.load(Ordering::SeqCst) && request.line() == "GET /healthz";
                let answer = "HTTP/1.1 503 Ill\r\ncontent-length: 0\r\n\r\n";
                peer.send(if ill { answer } else { OK_JSON }).await;
            }
        }
    })
    .await;
    let other = Upstream::ok().await;
    let health = "health: {path: /healthz, every: 50ms, rise: 2, fall: 2}";
    let gate = gate_of(&[server.address(), other.address()], health);
    let asked = || server.requests().iter().filter(|request| request.line() == "GET /").count();
    until_up(&gate, server.address(), false).await;
    for _ in 0..6 {
        assert_ok(&ask(&gate, &Ask::get("/")).await);
    }
    assert_eq!(asked(), 0);
    ill.store(false, Ordering::SeqCst);
    until_up(&gate, server.address(), true).await;
    for _ in 0..6 {
        assert_ok(&ask(&gate, &Ask::get("/")).await);
    }
    assert_eq!(asked(), 3);
    let check = server.requests().remove(0);
    assert_eq!(
        (check.line(), check.head.field("host")),
        ("GET /healthz", Some(&*server.address().to_string()))
    );
}

/// Containers move: the app must be followed when it does, and be served by all the machines that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_followed() {
    let [home, moved] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let first = Upstream::named("first").await;
    let port = first.address().port();
    let second = Upstream::at((moved, port), |mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond").await;
        }
    })
    .await;
    let names = NameServer::start(1).await;
    names.say(&[home]);
    let settings = format!("upstream: http://app.test:{port}\nname_servers: ['{}']\n", names.address);
    let gate = gate(first.address(), &settings);
    let place = async || ask(&gate, &Ask::get("/")).await.text();
    assert_eq!(place().await, "first");
    names.say(&[moved]);
    within("the second", async {
        while place().await != "second" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.forget_draws();
        }
    })
    .await;
    names.say(&[home, moved]);
    names.asked_again().await;
    let mut both = [place().await, place().await];
    both.sort();
    assert_eq!(both, ["first", "second"], "a name with two addresses is two servers");
    drop(second);
}

/// Asked too often a name server is a nuisance, asked too seldom its word is stale.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_asked_for_when_its_time_to_live_is_over() {
    let upstream = Upstream::ok().await;
    let port = upstream.address().port();
    for (time_to_live, again) in [(1, true), (30, false)] {
        let names = NameServer::start(time_to_live).await;
        names.say(&[Ipv4Addr::LOCALHOST]);
        let settings = format!("upstream: http://app.test:{port}\nname_servers: ['{}']\n", names.address);
        let gate = gate(upstream.address(), &settings);
        assert_ok(&ask(&gate, &Ask::get("/")).await);
        // At the start and by the task that follows the name, for two families each.
        within("the first questions", async {
            while names.asked() < 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(names.asked() > 4, again, "{time_to_live} s");
    }
}

/// Puts something between the gate and a server: accepts by `accept`, and copies both ways.
fn bridge<S, F>(to: SocketAddr, mut accept: impl FnMut() -> F + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<S>> + Send,
{
    tokio::spawn(async move {
        loop {
            if let Some(mut near) = accept().await {
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.expect("connects");
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }
    });
}

/// Apps behind gunicorn, Puma or PHP-FPM's neighbours listen on sockets without a port.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_server() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let path = scratch.path("app.sock");
    let listener = Arc::new(UnixListener::bind(&path).expect("binds"));
    bridge(upstream.address(), move || {
        let listener = listener.clone();
        async move { listener.accept().await.ok().map(|(stream, _)| stream) }
    });
    let gate = gate(upstream.address(), &format!("upstream: unix:{}\n", path.display()));
    for kind in both() {
        for _ in 0..2 {
            assert_ok(&ask(&gate, &kind).await);
        }
    }
    assert_eq!(upstream.requests().len(), 4);
    assert_eq!(upstream.connections(), 2, "a connection is kept by each carriage");
}

/// A server's certificate, and how it came to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Certificate {
    Sound,
    ForAnother,
    Expired,
    SelfSigned,
}

/// An authority, the file that says to believe it, and TLS in front of `upstream`.
async fn tls(kind: Certificate, upstream: &Upstream, scratch: &Scratch) -> (SocketAddr, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_file = scratch.path(&format!("{kind:?}.pem"));
    std::fs::write(&ca_file, ca.self_signed(&ca_key).expect("signed").pem()).expect("written");

    let key = KeyPair::generate().expect("a key");
    let name = if kind == Certificate::ForAnother { "other.example" } else { "127.0.0.1" };
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if kind == Certificate::Expired {
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    let certificate = match kind {
        Certificate::SelfSigned => leaf.self_signed(&key),
        _ => leaf.signed_by(&key, &Issuer::new(ca, ca_key)),
    };
    let certificate = certificate.expect("signed").der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.serialize_der().try_into().expect("a key"))
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.expect("binds"));
    let address = listener.local_addr().expect("bound");
    bridge(upstream.address(), move || {
        let (listener, acceptor) = (listener.clone(), acceptor.clone());
        async move {
            let (stream, _) = listener.accept().await.ok()?;
            acceptor.accept(stream).await.ok()
        }
    });
    (address, ca_file.display().to_string())
}

/// Whoever answers at the server's address without its certificate would read every prompt and key.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified() {
    use Certificate::*;
    for certificate in [Sound, ForAnother, Expired, SelfSigned] {
        let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
        let (server, ca) = tls(certificate, &upstream, &scratch).await;
        let of = |tls: &str| {
            let settings = format!("upstream: https://{server}\nupstream_defaults: {{tls: {{{tls}}}}}\n");
            gate(upstream.address(), &settings)
        };
        let believing = of(&format!("ca: '{ca}'"));
        for kind in both() {
            let answer = ask(&believing, &kind).await;
            if certificate == Sound {
                assert_ok(&answer);
                // By another authority's word, which the system believes, it is a stranger's.
                assert_refused(&ask(&of(""), &kind).await, 502, "upstream_unreachable");
            } else {
                assert_refused(&answer, 502, "upstream_unreachable");
                assert_eq!(upstream.requests().len(), 0, "{certificate:?}");
            }
        }
        if certificate == ForAnother {
            let renamed = of(&format!("ca: '{ca}', server_name: other.example"));
            for kind in both() {
                assert_ok(&ask(&renamed, &kind).await);
            }
        }
        let trusting = of("verify: false");
        for kind in both() {
            assert_ok(&ask(&trusting, &kind).await);
        }
    }
}

/// Two upstreams at one address that trust different authorities must not share a connection: the one would use what only
/// the other has verified.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_not_shared_across_trust() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let (server, ca) = tls(Certificate::Sound, &upstream, &scratch).await;
    let (_, wrong) = tls(Certificate::SelfSigned, &upstream, &scratch).await;
    let settings = format!(
        "upstream: right\nupstreams:\n  right: {{servers: 'https://{server}', tls: {{ca: '{ca}'}}}}\n  wrong: \
         {{servers: ['https://{server}'], tls: {{ca: '{wrong}'}}}}\nroutes:\n- {{name: wrong, match: {{paths: \
         ['/wrong/*']}}, upstream: wrong}}\n"
    );
    let gate = gate(upstream.address(), &settings);
    for kind in both() {
        assert_ok(&ask(&gate, &kind).await);
        let mut elsewhere = kind.clone();
        elsewhere.target = "/wrong/x".into();
        assert_refused(&ask(&gate, &elsewhere).await, 502, "upstream_unreachable");
    }
}

/// With `forward.host: upstream` each server has to see its own name, or a virtual host answers for another.
#[tokio::test(flavor = "multi_thread")]
async fn each_server_sees_its_own_host() {
    let servers = [Upstream::ok().await, Upstream::ok().await];
    let list = urls(&servers.each_ref().map(Upstream::address));
    let gate = gate(servers[0].address(), &format!("upstream: [{list}]\nforward: {{host: upstream}}\n"));
    for kind in both() {
        for _ in 0..2 {
            assert_ok(&ask(&gate, &kind).await);
        }
    }
    for server in &servers {
        let own = server.address().to_string();
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests.iter().all(|request| request.head.field("host") == Some(&*own)), "{requests:?}");
    }
}
