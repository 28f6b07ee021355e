//! Settings read again while requests are served: in force at once and whole, or not at all.

mod common;

use common::{
    Answer, Ask, BOTH, Gate, Load, Program, Scratch, Upstream, Via, Wire, gate, unreachable, within,
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
