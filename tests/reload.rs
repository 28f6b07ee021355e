//! Settings read again while requests are served: in force at once and whole, or not at all.

mod common;

use common::{
    Answer, Ask, BOTH, Gate, Load, NameServer, OK_JSON, Program, Scratch, Upstream, Via, Wire, gate,
    unreachable, within,
};
use tokio::task::block_in_place;

const ADMIN: &str = "admin: {listen: '127.0.0.1:0', token: open-sesame}\n";
/// So that no limit has a part in what is tested.
const UNLIMITED: &str = "limits: {pages: off, api: off, api-user: off, session: off, tenant: off, ai: off}\n";

/// Asks for a reload with this token.
async fn reload_with(gate: &Gate, token: &str) -> Answer {
    let ask = Ask::new("POST", "/api/config/reload").field("authorization", format!("Bearer {token}"));
    gate.admin_ask(&ask).await
}

/// Puts other settings in force.
async fn reload(gate: &Gate, settings: &str) {
    gate.rewrite(&format!("{ADMIN}{settings}"));
    let answer = reload_with(gate, "open-sesame").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn device() -> Ask {
    Ask::chat().field("x-device-id", "a-device")
}

/// An operator who closes a hole must not have to wait for clients to reconnect.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_runs_under_the_new_settings() {
    let (old, new) = (Upstream::ok().await, Upstream::ok().await);
    let gate = gate(old.address(), ADMIN);
    let mut wire = Wire::to(gate.traffic()).await;
    assert_eq!(wire.ask(Ask::chat().bytes()).await.status, 200);
    reload(&gate, &format!("upstream: http://{}\nsecurity_headers: off\n", new.address())).await;
    let answer = wire.ask(Ask::chat().bytes()).await;
    assert_eq!((answer.status, answer.field("x-frame-options")), (200, None));
    assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
}

/// Half of a request under one set of rules and half under another is under neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_keeps_its_settings() {
    for (via, ask) in BOTH.into_iter().flat_map(|via| [(via, Ask::chat()), (via, Ask::get("/page"))]) {
        let (upstream, asked, go) = Upstream::on_cue().await;
        let gate = gate(upstream.address(), &format!("{ADMIN}security_headers: off\n"));
        let reloading = async {
            within("the upstream's being asked", asked.notified()).await;
            reload(&gate, "security_headers: on\n").await;
            go.notify_one();
        };
        let (answer, ()) = tokio::join!(gate.ask(via, &ask), reloading);
        assert_eq!((answer.status, answer.field("x-frame-options")), (200, None), "{via:?} {}", ask.method);
        let (answer, ()) = tokio::join!(gate.ask(via, &ask), async { go.notify_one() });
        assert_eq!((answer.status, answer.field("x-frame-options")), (200, Some("DENY")), "{via:?}");
    }
}

/// A reload that hands everyone a fresh quota is a way round every limit.
#[tokio::test(flavor = "multi_thread")]
async fn limits_count_on() {
    let upstream = Upstream::ok().await;
    let limit = |max| format!("limits: {{ai: {{by: [device], windows: [{max}/min]}}}}\n");
    let gate = gate(upstream.address(), &format!("{ADMIN}{}", limit(2)));
    for _ in 0..2 {
        assert_eq!(gate.ask(Via::H1, &device()).await.status, 200);
    }
    // The same digest stands for the device as before, though nothing sets its key.
    reload(&gate, &limit(3)).await;
    assert_eq!(gate.ask(Via::H1, &device()).await.status, 200);
    let refused = gate.ask(Via::H1, &device()).await;
    assert_eq!((refused.status, refused.field("x-ratelimit-limit")), (429, Some("3")));
    reload(&gate, &format!("{}routes: [{{name: a, match: {{paths: [/a]}}}}]\n", limit(3))).await;
    assert_eq!(gate.ask(Via::H1, &device()).await.status, 429);
}

/// Requests in flight are counted over a reload, or each reload would admit as many again.
#[tokio::test(flavor = "multi_thread")]
async fn concurrency_counts_on() {
    let (upstream, asked, go) = Upstream::on_cue().await;
    let settings = "concurrency: {total: 9, address: 1, user: 1}\n";
    let gate = gate(upstream.address(), &format!("{ADMIN}{settings}"));
    let mut held = Wire::to(gate.traffic()).await;
    held.send(Ask::chat().bytes()).await;
    within("the upstream's being asked", asked.notified()).await;
    reload(&gate, settings).await;
    common::assert_refused(&gate.ask(Via::H1, &Ask::chat()).await, 429, "concurrency_limited");
    go.notify_one();
    assert_eq!(held.answer().await.status, 200);
}

/// How often health checks came.
fn checks(server: &Upstream) -> usize {
    server.requests().iter().filter(|request| request.line() == "GET /healthz").count()
}

/// A server whose health checks fail, and one where they pass; both serve, and stream without end at /events.
async fn ill_and_well() -> [Upstream; 2] {
    let server = |ill: bool| {
        Upstream::scripted(move |mut peer| async move {
            while let Some(request) = peer.request().await {
                let told = match request.line() {
                    "GET /healthz" if ill => "HTTP/1.1 503 Ill\r\ncontent-length: 0\r\n\r\n",
                    "GET /events" => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a\n\n",
                    _ => OK_JSON,
                };
                peer.send(told).await;
                if request.line() == "GET /events" {
                    peer.ends().await;
                    return;
                }
            }
        })
    };
    [server(true).await, server(false).await]
}

/// An operator takes health checks back, or changes what they ask for: it must count at once. A stream that began under the
/// old settings may last for an hour; the old checks must not go on for as long, and judge servers by what no longer holds.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_no_longer_in_force_judge_no_server() {
    for after in ["{path: off}", "{path: /other, every: 50ms, rise: 1, fall: 1}"] {
        let [ill, well] = ill_and_well().await;
        let servers = format!("upstream: 'http://{},http://{}'\n{UNLIMITED}", ill.address(), well.address());
        let of = |health: &str| format!("{servers}upstream_defaults: {{health: {health}}}\n");
        let before = of("{path: /healthz, every: 50ms, rise: 1, fall: 1}");
        let gate = gate(ill.address(), &format!("{ADMIN}{before}"));
        let is_up = async |up: bool| {
            let line = format!(
                "tidegate_upstream_up{{server=\"{}\",upstream=\"default\"}} {}",
                ill.address(),
                u8::from(up)
            );
            within(&line, async {
                while !gate.admin_ask(&Ask::get("/metrics")).await.text().contains(&line) {
                    common::a_moment().await;
                }
            })
            .await;
        };
        is_up(false).await;
        let mut stream = Wire::to(gate.traffic()).await;
        stream.send(Ask::get("/events").bytes()).await;
        stream.read_until(b"data: a\n\n").await;
        reload(&gate, &of(after)).await;
        is_up(true).await;
        common::a_moment().await;
        let checked = (checks(&ill), checks(&well));
        for _ in 0..4 {
            common::a_moment().await;
            is_up(true).await;
        }
        assert_eq!((checks(&ill), checks(&well)), checked, "{after}: the old checks go on");
        // A reload that is refused must not take anything back, either.
        reload(&gate, &before).await;
        is_up(false).await;
        gate.rewrite(&format!("{ADMIN}{}threads: 7\n", of("{path: off}")));
        assert_eq!(reload_with(&gate, "open-sesame").await.status, 422);
        is_up(false).await;
        let elsewhere = Upstream::ok().await;
        reload(&gate, &format!("upstream: http://{}\n", elsewhere.address())).await;
        common::a_moment().await;
        let checked = checks(&well);
        common::a_moment().await;
        assert_eq!(checks(&well), checked, "an upstream that is gone is checked on");
    }
}

/// Each reload would otherwise leave one more task behind that asks the name server, for as long as a stream lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_asked_for_by_one_at_a_time() {
    let [_, server] = ill_and_well().await;
    let names = NameServer::start(1).await;
    names.say(&[std::net::Ipv4Addr::LOCALHOST]);
    let of = |connect: u32| {
        let at = format!("http://app.test:{}", server.address().port());
        let names = format!("name_servers: ['{}']\n", names.address);
        format!("upstream: {at}\n{names}{UNLIMITED}upstream_defaults: {{connect_timeout: {connect}s}}\n")
    };
    let gate = gate(server.address(), &format!("{ADMIN}{}", of(1)));
    let mut streams = Vec::new();
    for connect in 2..5 {
        let mut stream = Wire::to(gate.traffic()).await;
        stream.send(Ask::get("/events").bytes()).await;
        stream.read_until(b"data: a\n\n").await;
        streams.push(stream);
        reload(&gate, &of(connect)).await;
    }
    common::a_moment().await;
    let before = names.asked();
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    let rounds = (names.asked() - before) / 2;
    assert!((2..=4).contains(&rounds), "{rounds} look-ups in three seconds of a name that is good for one");
}

/// A slip of the pen must not take the gate down, nor leave it half changed; and it has to be found.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_with_its_line_and_the_old_one_serves() {
    let (upstream, nowhere) = (Upstream::ok().await, unreachable().await);
    let gate = gate(upstream.address(), ADMIN);
    let elsewhere = format!("upstream: http://{nowhere}\n{ADMIN}");
    let bad = [
        ("caps:\n  urii: 1KiB\n", "caps: unknown key \"urii\""),
        ("limits:\n  ai: {windows: [many]}\n", "limits.ai.windows"),
        ("connections:\n  max: 5\n", "connections.max: can't change while the server runs"),
        ("\nthreads: 2\n", "threads: can't change while the server runs"),
    ];
    for (settings, why) in bad {
        gate.rewrite(&format!("{elsewhere}{settings}"));
        let answer = reload_with(&gate, "open-sesame").await;
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 422, "{detail}");
        let line = std::iter::successors(Some(1), |line| Some(line + 1))
            .find(|line| detail.contains(&format!("test.yaml:{line}: ")))
            .filter(|line| *line < 20);
        assert!(line.is_some() && detail.contains(why), "{detail}");
        assert_eq!(gate.ask(Via::H1, &Ask::get("/page")).await.status, 200, "{settings}");
    }
    let events = gate.events("CONFIG_RELOAD").await;
    assert!(events.contains(r#""result":"refused""#) && events.contains("urii"), "{events}");
    let metrics = gate.admin_ask(&Ask::get("/metrics")).await.text();
    assert!(metrics.contains(r#"tidegate_config_reloads_total{result="refused"} 4"#), "{metrics}");
    assert!(metrics.contains(r#"tidegate_config_reloads_total{result="applied"} 0"#), "{metrics}");
    reload(&gate, "").await;
    let metrics = gate.admin_ask(&Ask::get("/metrics")).await.text();
    assert!(metrics.contains(r#"tidegate_config_reloads_total{result="applied"} 1"#), "{metrics}");
    let events = gate.events(r#""result":"applied""#).await;
    assert!(events.contains(r#""asked_by":"admin","client_address":"127.0.0.1""#), "{events}");
}

/// A token that leaked has to be dead at once, and none that is merely near may reload.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_changes_with_the_settings() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), ADMIN);
    assert_eq!(gate.admin_ask(&Ask::new("POST", "/api/config/reload")).await.status, 401);
    assert_eq!(gate.admin_ask(&Ask::get("/api/config/reload")).await.status, 405);
    gate.rewrite("admin: {listen: '127.0.0.1:0', token: another-one}\n");
    assert_eq!(reload_with(&gate, "open-sesame").await.status, 200);
    assert_eq!(reload_with(&gate, "open-sesame").await.status, 401);
    assert_eq!(reload_with(&gate, "another-one").await.status, 200);
}

/// A configuration tool that reloads every minute must not cost a request each time, nor all upstream connections.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_cost_nobody_an_answer() {
    let reloads = std::env::var("RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let upstream = Upstream::ok().await;
    let settings = format!("{UNLIMITED}upstream_defaults: {{idle_timeout: 1h}}\n");
    let gate = gate(upstream.address(), &format!("{ADMIN}{settings}"));
    let load = Load::on(gate.traffic());
    for number in 0..reloads {
        reload(&gate, &format!("{settings}caps: {{header_count: {}}}\n", 50 + number % 50)).await;
    }
    let answered = load.answered();
    let failures = load.failures().await;
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
    assert!(answered > reloads, "{answered} requests were answered during {reloads} reloads");
    assert!(upstream.connections() < 40, "{} upstream connections", upstream.connections());
}

/// `tidegate reload` and SIGHUP are what scripts and service managers use: each has to tell how it went.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_the_signal_reload_a_running_program() {
    let (old, new) = (Upstream::ok().await, Upstream::ok().await);
    let scratch = Scratch::new();
    let (file, state) =
        (scratch.path("own.yaml").display().to_string(), scratch.path("state").display().to_string());
    let write = |upstream: &Upstream, more: &str| {
        let text = format!("{more}\nupstream: http://{}\nlog: {{access: {{to: off}}}}\n", upstream.address());
        std::fs::write(&file, text).expect("writes");
    };
    write(&old, "");
    let environment = [("STATE_DIR", &*state)];
    let arguments = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let program = Program::start(&arguments, &environment);
    let line = program.says("traffic on http://");
    let address = |name: &str| {
        let (_, rest) = line.split_once(&format!("{name} on http://")).expect("an address");
        rest.split(',').next().expect("an address").to_owned()
    };
    let (traffic, admin) = (address("traffic"), address("admin"));
    let run = |command: &str| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let program = program.args([command, "-c", &file, "--admin", &admin]).env_clear().envs(environment);
        let output = block_in_place(|| program.output()).expect("the program runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let served = async || {
        let mut wire = Wire::to(traffic.parse().expect("an address")).await;
        wire.ask(Ask::get("/page").bytes()).await.status
    };
    assert_eq!((served().await, old.requests().len()), (200, 1));
    write(&new, "");
    assert_eq!(run("reload"), (Some(0), String::new()));
    assert_eq!((served().await, new.requests().len()), (200, 1));
    // The flags stand over the file still: what it says of the addresses does not matter.
    write(&old, "listen: 127.0.0.1:1\ndrain: 1s");
    let (code, said) = run("reload");
    assert_eq!(code, Some(1));
    assert!(said.contains("own.yaml:2: drain: can't change") && !said.contains("listen"), "{said}");
    assert_eq!((served().await, new.requests().len()), (200, 2));
    write(&old, "");
    program.signal("HUP");
    program.says("asker=SIGHUP");
    assert_eq!((served().await, old.requests().len()), (200, 2));
    assert_eq!(run("health").0, Some(0));
    program.signal("TERM");
    assert!(block_in_place(|| program.ended()));
    let (code, said) = run("health");
    assert!(code == Some(1) && said.contains("no answer from the admin port"), "{said}");
}
