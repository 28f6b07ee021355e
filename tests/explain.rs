//! `tidegate explain`: tells of one request what the gate that serves would do, in the order in which it does.

mod common;

use std::process::{Command, Output};

use common::{Scratch, Upstream, gate};
use serde_json::Value;

/// The program's answer under these settings: whether all went well, and what it printed.
fn explain(settings: &str, arguments: &[&str]) -> (bool, String) {
    let scratch = Scratch::new();
    let file = scratch.path("tidegate.yaml");
    // A port that nobody listens on: what is explained is never sent.
    std::fs::write(&file, format!("upstream: http://127.0.0.1:1\n{settings}")).expect("writes");
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let program = program.args(["explain", "-c", &file.display().to_string()]).args(arguments).env_clear();
    let Output { status, stdout, stderr } = program.output().expect("the program runs");
    let text = String::from_utf8([stdout, stderr].concat()).expect("UTF-8");
    (status.success(), text)
}

#[track_caller]
fn explained(settings: &str, arguments: &[&str]) -> Value {
    let (good, said) = explain(settings, &[&["--json"], arguments].concat());
    assert!(good, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|why| panic!("{why}: {said}"))
}

/// Stages that came to `outcome`, in order.
fn stages<'r>(report: &'r Value, outcome: &str) -> Vec<&'r str> {
    let way = report["way"].as_array().expect("the way").iter();
    way.filter(|stage| stage["outcome"] == outcome).filter_map(|stage| stage["stage"].as_str()).collect()
}

/// What stands behind each `flag`.
fn values<'a>(arguments: &[&'a str], flag: &str) -> Vec<&'a str> {
    arguments.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1]).collect()
}

const CHAT: [&str; 3] = ["/api/chat", "-d", r#"{"message":"hello"}"#];

/// Someone who tunes a set-up sees that a request passes, where it goes, and what it counts for.
#[test]
fn a_request_that_passes_is_told_from_end_to_end() {
    let settings = "\
hosts: [chat.example.com]
client: {trusted_proxies: [10.0.0.1]}
routes:
- {name: other, match: {paths: [/other]}}
- {name: ask, match: {paths: [/api/*]}, limits: {ai: {windows: [3/min]}}}
";
    let key = "authorization: Bearer sk-abcdefghijklmnopqrstuvwxyz0123456789";
    let arguments =
        ["--from", "10.0.0.1", "-H", "x-forwarded-for: 192.0.2.7", "-H", key, "-d", r#"{"message":"hi"}"#];
    let report = explained(settings, &[&arguments[..], &["http://chat.example.com/api//chat?a=1"]].concat());
    let understood = &report["understood"];
    assert_eq!(understood["path"], "/api/chat", "{report:#}");
    assert_eq!((&understood["route"], &understood["passed_over"][0][1]), (&"ask".into(), &"path".into()));
    assert!(report["route_place"].as_str().expect("a place").ends_with("tidegate.yaml:6"), "{report:#}");
    assert_eq!((&understood["address"], &understood["forwarded_for"]), (&"192.0.2.7".into(), &true.into()));
    assert_eq!((&understood["class"], &understood["traffic"]), (&"keyed".into(), &"ai".into()));
    assert_eq!(stages(&report, "refused"), [""; 0], "{report:#}");
    let limits = report["limits"].as_array().expect("limits");
    let ai = limits.iter().find(|limit| limit["name"] == "ask/ai").expect("the route's own limit");
    assert_eq!((&ai["limit"], &ai["remaining"]), (&3.into(), &2.into()), "{report:#}");
    let forwarded = &report["forwarded"];
    assert_eq!((&forwarded["target"], &forwarded["body_changed"]), (&"/api/chat?a=1".into(), &false.into()));
    assert_eq!(report["answer"], Value::Null);
    assert!(!report.to_string().contains("sk-abc"), "{report:#}");
    let (good, said) = explain(settings, &[&arguments[..], &["http://chat.example.com/api/chat"]].concat());
    assert!(good && said.contains("not other (its path)") && said.contains("The app answers."), "{said}");
    assert!(said.contains("2 of 3 in 60 s left after it") && !said.contains("sk-abc"), "{said}");
}

/// Every guard that would refuse is told with what sets it, not only the first; and the answer is the real one.
#[test]
fn all_that_would_refuse_is_told_and_the_first_one_answers() {
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(5000));
    let arguments = ["http://evil.example/api/chat", "-H", "origin: https://other.example", "-d", &long];
    let report = explained("hosts: [chat.example.com]\n", &arguments);
    assert_eq!(stages(&report, "refused"), ["hosts"], "{report:#}");
    assert_eq!(stages(&report, "would_refuse"), ["origin", "json, form, text, sanitize"], "{report:#}");
    assert_eq!(report["answer"]["status"], 421);
    assert!(report["answer"]["body"].as_str().is_some_and(|body| body.contains("host_denied")), "{report:#}");
    assert_eq!(report["forwarded"], Value::Null);
    let (_, said) = explain("hosts: [chat.example.com]\n", &arguments);
    for wanted in ["REFUSES", "421 host_denied, set by hosts", "text_too_long, set by text.chat", "TOO LONG"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

/// What is explained must be what is done: the same guard, the same words, for each reason that a request can give.
#[tokio::test(flavor = "multi_thread")]
async fn explained_and_served_are_refused_alike() {
    let form = "content-type: multipart/form-data; boundary=b7";
    let file =
        "--b7\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../a.png\"\r\n\r\n1\r\n--b7--\r\n";
    let cases: [(&str, &str, &[&str]); 10] = [
        ("hygiene", "", &["/page", "-H", "content-length: 1", "-H", "content-length: 2"]),
        ("hygiene", "", &["/page", "-X", "GET", "-d", "hidden"]),
        ("paths", "", &["/a/../.."]),
        ("addresses", "addresses: {deny: [127.0.0.0/8]}\n", &["/page"]),
        ("caps", "caps: {uri: 10}\n", &["/a-long-path"]),
        ("origin", "", &["/api/chat", "-d", "{}", "-H", "origin: https://evil.example"]),
        ("body", "", &["/api/chat", "-d", "{}", "-H", "content-encoding: gzip"]),
        (
            "json, form, text, sanitize",
            "",
            &["/api/chat", "-d", r#"{"a":1,"a":2}"#, "-H", "content-type: application/json"],
        ),
        ("uploads", "", &["/files", "-d", file, "-H", form]),
        ("limits of the address", "limits: {pages: {windows: [1/min]}}\n", &["/page", "--times", "2"]),
    ];
    for (stage, settings, arguments) in cases {
        let report = explained(settings, arguments);
        assert_eq!(stages(&report, "refused"), [stage], "{report:#}");
        let upstream = Upstream::ok().await;
        let gate = gate(upstream.address(), settings);
        let of = |flag| values(arguments, flag).into_iter();
        let body = of("-d").next();
        let method = of("-X").next().unwrap_or(if body.is_some() { "POST" } else { "GET" });
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: localhost\r\n", arguments[0]);
        of("-H").for_each(|field| head.push_str(&format!("{field}\r\n")));
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let bytes = format!("{head}\r\n{}", body.unwrap_or_default()).into_bytes();
        let times = of("--times").next().and_then(|times| times.parse().ok()).unwrap_or(1);
        let mut answer = None;
        for _ in 0..times {
            answer = Some(common::Wire::to(gate.traffic()).await.ask(&bytes).await);
        }
        let answer = answer.expect("an answer");
        let told = &report["answer"];
        assert_eq!(told["status"], answer.status, "{stage}: {report:#}");
        let fields = told["fields"].as_array().expect("fields").iter();
        let reason =
            fields.clone().find(|field| field[0] == "x-tidegate-reason").map(|field| field[1].as_str());
        assert_eq!(reason.flatten(), answer.field("x-tidegate-reason"), "{stage}: {report:#}");
        let names: Vec<_> = fields.filter_map(|field| field[0].as_str()).collect();
        assert!(names.contains(&"x-frame-options"), "{stage}: {report:#}");
        let refusal = report["way"].as_array().expect("the way").iter().find(|s| s["outcome"] == "refused");
        assert_eq!(refusal.expect("one")["refusals"][0]["reason"], reason.flatten().expect("a reason"));
    }
}

/// Someone who wonders why a text looks odd sees which field it was, where it was to end up, and what was made of it.
#[test]
fn texts_are_shown_before_and_after() {
    let settings = "sanitize: {fields: {/bio: {sink: plain, action: sanitize}}}\n";
    let body = r#"{"message":"a <script>x</script> \u00e9","bio":"<b>me</b>","token":"sk-abcdefghijklmnopqrstuvwxyz012345"}"#;
    let report = explained(settings, &["/api/data", "-d", body]);
    let texts = report["texts"].as_array().expect("texts");
    let of = |field: &str| texts.iter().find(|text| text["field"] == field).expect("the field");
    assert_eq!(of("/message")["sink"], "html", "{report:#}");
    assert_eq!(of("/message")["before"], "a <script>x</script> é");
    assert_eq!(of("/message")["after"], "a &lt;script>x&lt;/script> é");
    assert_eq!((&of("/bio")["sink"], &of("/bio")["after"]), (&"plain".into(), &"me".into()), "{report:#}");
    assert_eq!(report["forwarded"]["body_changed"], true);
    assert!(!report.to_string().contains("sk-abc"), "{report:#}");
    // As the app would get it from the gate that serves: in one part as in several, in a form and in a query.
    let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"<scr"},{"type":"text","text":"ipt>"}]}]}"#;
    let report = explained("", &["/api/chat", "-d", parts]);
    assert!(
        report["texts"].as_array().expect("texts").iter().any(|text| text["after"] != Value::Null),
        "{report:#}"
    );
    let form = explained("", &["/api/chat?message=%3Csvg+onload%3D1%3E", "-d", "message=a+%3Cscript%3E"]);
    let parts: Vec<_> = form["texts"].as_array().expect("texts").iter().map(|text| &text["part"]).collect();
    assert_eq!(parts, ["query", "form"], "{form:#}");
    assert!(
        form["texts"].as_array().expect("texts").iter().all(|text| text["after"] != Value::Null),
        "{form:#}"
    );
    // Long texts are cut around what changes.
    let long = format!(r#"{{"message":"{}<script>{}"}}"#, "a".repeat(500), "b".repeat(500));
    let text =
        explained("", &["/api/chat", "-d", &long])["texts"][0]["after"].as_str().expect("text").to_owned();
    assert!(text.contains("&lt;script>") && text.chars().count() < 100, "{text}");
}

/// What is no body has texts as well; and what streams is not forwarded by the exchange, but goes on all the same.
#[test]
fn paths_and_websockets_are_told_of() {
    let report = explained("", &["/x%3Cscript%3E"]);
    let text = &report["texts"][0];
    assert_eq!((&text["part"], &text["before"]), (&"path".into(), &"/x<script>".into()), "{report:#}");
    assert_eq!((&text["after"], &text["setting"]), (&"/x&lt;script>".into(), &"sanitize.path".into()));
    assert_eq!(explained("", &["/x%20y"])["texts"], Value::Array(Vec::new()));
    let handshake =
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="];
    let fields: Vec<_> = handshake.into_iter().flat_map(|field| ["-H", field]).collect();
    let report = explained("", &[&["/ws"], &fields[..]].concat());
    assert_eq!((&report["understood"]["websocket"], &report["answer"]), (&true.into(), &Value::Null));
    assert!(stages(&report, "passed").contains(&"upstream"), "{report:#}");
}

/// A guard that only observes must not be told to refuse, nor one behind it to be the first.
#[test]
fn observing_guards_are_told_as_such() {
    let report = explained("observe: [hosts]\n", &["http://evil.example/page"]);
    assert_eq!(stages(&report, "observed"), ["hosts"], "{report:#}");
    assert_eq!(stages(&report, "refused"), [""; 0]);
    assert_ne!(report["forwarded"], Value::Null);
    let file =
        "--b7\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../a.png\"\r\n\r\n1\r\n--b7--\r\n";
    let form = "content-type: multipart/form-data; boundary=b7";
    let report = explained("mode: observe\n", &["/files", "-d", file, "-H", form]);
    assert_eq!(stages(&report, "observed"), ["uploads"], "{report:#}");
    assert_eq!(report["forwarded"]["body_bytes"], file.len(), "{report:#}");
}

/// What somebody has switched by hand in the gate that runs counts here, too; and nothing is written there.
#[test]
fn maintenance_that_is_on_is_seen() {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    std::fs::create_dir_all(&state).expect("makes it");
    let switches = r#"{"breakers":{},"maintenance":{"message":"Back at noon.","retry_after_s":60}}"#;
    std::fs::write(state.join("switches.json"), switches).expect("writes");
    let report = explained(&format!("state_dir: {}\n", state.display()), &CHAT);
    assert_eq!(stages(&report, "refused"), ["maintenance"], "{report:#}");
    let kept: Vec<_> = std::fs::read_dir(&state).expect("reads").collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

/// A run that hangs, or an error that says nothing, helps nobody.
#[test]
fn what_is_no_request_is_an_error_or_an_answer() {
    for (arguments, wanted) in [
        (&["chat.example/page"][..], "neither a URL nor a path"),
        (&["/page", "-d", "@/nonexistent"], "/nonexistent can't be read"),
    ] {
        let (good, said) = explain("", arguments);
        assert!(!good && said.contains(wanted), "{said}");
    }
    for arguments in [
        &["/page", "-H", "no field"][..],
        &["/page", "-X", "G T"],
        &["/page", "-H", "transfer-encoding: chunked", "-d", "x"],
    ] {
        let report = explained("", arguments);
        assert_eq!(report["answer"]["status"], 400, "{arguments:?}: {report:#}");
    }
}

/// A large upload is looked at to its end, as it is when it streams.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_looked_at_to_their_end() {
    let form = "content-type: multipart/form-data; boundary=b7";
    let part = "--b7\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n";
    let file =
        "--b7\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../a.png\"\r\n\r\n1\r\n--b7--\r\n";
    let scratch = Scratch::new();
    let body = scratch.path("body");
    let said_file = format!("@{}", body.display());
    std::fs::write(&body, [part, &"x".repeat(300_000), "\r\n", file].concat()).expect("writes");
    let report = explained("", &["/files", "-H", form, "-d", &said_file]);
    assert_eq!(stages(&report, "refused"), ["uploads"], "{report:#}");
    std::fs::write(&body, [part, &"x".repeat(300_000), "\r\n--b7--\r\n"].concat()).expect("writes");
    let report = explained("", &["/files", "-H", form, "-d", &said_file]);
    let length = std::fs::metadata(&body).expect("a file").len();
    assert_eq!(report["forwarded"]["body_bytes"], length, "{report:#}");
}
