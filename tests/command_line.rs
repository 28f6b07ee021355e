//! The program as it is started: what it reads, and what it says of what it does not.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};

use common::Scratch;
use tidegate::cli::UNREAD;

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
const VALUE: &str = "a-value-that-is-nobodys-business";

/// The program, with nothing in its environment but what a test puts there.
fn tidegate(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    program.args(arguments).env_clear();
    program
}

fn check(program: &mut Command) -> (bool, String) {
    let Output { status, stderr, .. } = program.output().expect("the program runs");
    (status.success(), String::from_utf8(stderr).expect("UTF-8"))
}

/// Kills the program when the test is over, however it ends.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &mut Command) -> Started {
    Started(program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts"))
}

fn unread(name: &str) -> String {
    format!("{name} is set, but this version does not read it")
}

/// Someone who sets a budget that nothing enforces has to hear of it before the bill comes.
#[test]
fn names_that_are_not_read_are_warned_of() {
    let checked = ["check", "--upstream", "http://127.0.0.1:1"];
    for name in UNREAD {
        for name in [name.to_owned(), format!("{name}_FILE")] {
            let (good, said) = check(tidegate(&checked).env(&name, VALUE));
            assert!(good && said.lines().count() == 1 && said.contains(&unread(&name)), "{name}: {said}");
            assert!(!said.contains(VALUE), "{said}");
        }
        // Compose files hand on unset variables as empty ones.
        assert_eq!(check(tidegate(&checked).env(name, "")), (true, String::new()), "{name}");
    }
    let run = [&["run", "--upstream", "http://127.0.0.1:1"][..], &FREE].concat();
    let mut running = start(tidegate(&run).envs(UNREAD.map(|name| (name, VALUE))));
    let lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let said: Vec<_> = lines.take_while(|line| !line.contains("traffic on")).collect();
    for name in UNREAD {
        assert!(said.iter().any(|line| line.contains("WARN") && line.contains(&unread(name))), "{said:?}");
    }
}

/// A warning that is false teaches to overlook the true ones.
#[test]
fn a_name_that_the_file_uses_is_not_warned_of() {
    let scratch = Scratch::new();
    let file = scratch.path("own.yaml");
    let settings = "upstream: http://127.0.0.1:1\nlimits: {ai: {windows: ['${MAX_DAILY_CALLS}/h']}}\n";
    std::fs::write(&file, settings).expect("writes");
    let file = file.display().to_string();
    let said = check(tidegate(&["check", "-c", &file]).env("MAX_DAILY_CALLS", "70"));
    assert_eq!(said, (true, String::new()));
}

/// The commands that the demo prints tell what to expect; a setting from outside would make that false.
#[test]
fn the_demo_knows_the_defaults_only() {
    let outside = [
        ("UPSTREAM_URL", "http://127.0.0.1:1"),
        ("LISTEN", "nowhere"),
        ("RATE_LIMIT_AI_PER_MINUTE", "many"),
        ("DEBUG", "perhaps"),
        ("MAX_DAILY_COST", "1"),
    ];
    let mut demo = start(tidegate(&[&["demo"][..], &FREE].concat()).envs(outside));
    let mut first = String::new();
    BufReader::new(demo.0.stdout.take().expect("piped")).read_line(&mut first).expect("reads");
    demo.0.kill().expect("runs still");
    let mut said = String::new();
    demo.0.stderr.take().expect("piped").read_to_string(&mut said).expect("reads");
    let told = outside.iter().any(|(name, _)| said.contains(name));
    assert!(first.starts_with("gate ") && !told, "{first}{said}");
    for option in [["-c", "own.yaml"], ["--upstream", "http://127.0.0.1:1"]] {
        let refused = tidegate(&["demo"]).args(option).output().expect("the program runs");
        assert_eq!(refused.status.code(), Some(2), "{option:?}");
    }
}

/// Whoever looks into the audit must not take none for a sound one, nor a slip for an answer.
#[test]
fn the_audit_says_where_it_is_and_what_is_wrong_with_it() {
    let scratch = Scratch::new();
    let state = scratch.path("state").display().to_string();
    let audit = |what: &str, state: &str| {
        let mut program = tidegate(&["audit", what]);
        program.env("UPSTREAM_URL", "http://127.0.0.1:1").env("STATE_DIR", state);
        let Output { status, stdout, stderr } = program.output().expect("the program runs");
        (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
    };
    let (code, said) = audit("verify", "");
    assert!(code == Some(1) && said.contains("STATE_DIR"), "{said}");
    assert_eq!(audit("verify", &state), (Some(0), "the audit is empty\n".into()));
    assert_eq!(audit("list", &state), (Some(0), String::new()));
    std::fs::create_dir_all(&state).expect("makes it");
    std::fs::write(scratch.path("state").join("audit.jsonl"), "{}\n").expect("writes");
    for what in ["list", "verify"] {
        let (code, said) = audit(what, &state);
        assert!(code == Some(1) && said.contains("row 1 was changed"), "{said}");
    }
    std::fs::remove_file(scratch.path("state").join("audit.jsonl")).expect("removes");
    std::fs::write(scratch.path("state").join("audit.head"), "{\"row\":3,\"hash\":\"0\"}").expect("writes");
    let (code, said) = audit("verify", &state);
    assert!(code == Some(1) && said.contains("audit.jsonl is missing"), "{said}");
    for wrong in [
        &["ban"][..],
        &["ban", "198.51.100.7", "--for", "soon"],
        &["limits", "set", "ai"],
        &["audit", "list", "--since", "x"],
    ] {
        assert_eq!(tidegate(wrong).output().expect("runs").status.code(), Some(2), "{wrong:?}");
    }
}

/// Settings that nothing is to be said against.
fn production(scratch: &Scratch) -> Vec<(&'static str, String)> {
    let state = scratch.path("state");
    std::fs::create_dir_all(&state).expect("makes it");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).expect("its owner's");
    vec![
        ("upstream", "http://127.0.0.1:1".into()),
        ("hosts", "[chat.example.com]".into()),
        ("state_dir", state.display().to_string()),
        ("client", "{trusted_proxies: [127.0.0.1], secret: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}".into()),
    ]
}

/// Checks the settings with one of them replaced or added; whether they are good enough, and what was said.
fn checked(scratch: &Scratch, key: &'static str, value: &str) -> (bool, String) {
    let mut settings = production(scratch);
    settings.retain(|(known, _)| *known != key);
    settings.push((key, value.into()));
    let text: String = settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let file = scratch.path("tidegate.yaml");
    std::fs::write(&file, text).expect("writes");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its owner's");
    check(&mut tidegate(&["check", "--production", "-c", &file.display().to_string()]))
}

/// A finding says where, what and what to do, and never the secret that is wrong.
#[track_caller]
fn assert_told(finding: &str, (key, value, place, part): (&str, &str, &str, &str)) {
    assert!(finding.contains(&format!(": {place}: ")) && finding.contains(part), "{key}: {value}: {finding}");
    assert!(finding.contains(" — "), "no remedy: {finding}");
    assert!(
        ["hunter2", "swordfish", "aaaabbbb", "8f1d0c3b", "32-random"].iter().all(|s| !finding.contains(s)),
        "{finding}"
    );
    let left_out =
        ["client.trusted_proxies", "client.secret"].contains(&place) && finding.contains("built-in");
    assert!(
        finding.contains("tidegate.yaml:") && (left_out || !finding.contains("built-in")),
        "no line: {finding}"
    );
}

/// Whoever opens the gate to the world learns first what would let the world in, and where it stands.
#[test]
fn production_names_each_setting_that_is_not_good_enough() {
    let scratch = Scratch::new();
    let (good, said) = checked(&scratch, "threads", "2");
    assert!(good && said.is_empty(), "{said}");
    let open = scratch.path("open");
    std::fs::create_dir_all(&open).expect("makes it");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("everyone's");
    let weak = "{trusted_proxies: [127.0.0.1], secret: hunter2}";
    let repeated = "{trusted_proxies: [127.0.0.1], secret: aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb}";
    let copied = "{trusted_proxies: [127.0.0.1], secret: change-me-to-32-random-characters}";
    let everyone = "{trusted_proxies: ['::/0'], secret: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}";
    let halves = "{trusted_proxies: [0.0.0.0/1, 128.0.0.0/1], secret: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}";
    let same = "{token: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}";
    let unverified = "{app: {servers: ['https://10.0.0.1'], tls: {verify: false}}}";
    let uninspected = "[{name: a, match: {paths: [/api/ask]}, traffic: ai, inspect: off}]";
    let whole = "[{name: a, match: {methods: [POST]}, inspect: off}]";
    for case in [
        ("debug", "true", "debug", "is on"),
        ("hosts", "['*']", "hosts", "any name"),
        ("hosts", "[]", "hosts", "any name"),
        ("security_headers", "off", "security_headers", "is off"),
        ("origin", "off", "origin", "is off"),
        ("sanitize", "off", "sanitize", "is off"),
        ("sanitize", "{chat: {sink: html, action: observe}}", "sanitize.chat", "changes nothing"),
        ("sanitize", "{chat: {sink: model, action: sanitize}}", "sanitize.chat", "changes nothing"),
        ("sanitize", "{path: {sink: model, action: observe}}", "sanitize.path", "changes nothing"),
        ("uploads", "off", "uploads", "is off"),
        ("breaker", "off", "breaker", "is off"),
        ("log", "{events: {to: off}}", "log.events.to", "nobody hears"),
        ("upstream_defaults", "{tls: {verify: false}}", "upstream_defaults.tls.verify", "pose as the app"),
        ("upstreams", unverified, "upstreams.app.tls.verify", "pose as the app"),
        ("upstreams", "{a: {servers: http://a, breaker: off}}", "upstreams.a.breaker", "is off"),
        ("client", everyone, "client.trusted_proxies", "trusts everyone"),
        ("client", halves, "client.trusted_proxies", "trusts everyone"),
        ("cors", "{allowed_origins: ['*']}", "cors.allowed_origins", "any site"),
        ("limits", "{ai: off}", "limits.ai", "is off"),
        ("limits", "{api: {enabled: false}}", "limits.api", "is off"),
        ("routes", "[{name: a, match: {paths: [/a]}, origin: off}]", "routes[0].origin", "is off"),
        ("routes", "[{name: a, match: {paths: [/a]}, limits: {ai: off}}]", "routes[0].limits.ai", "is off"),
        ("routes", uninspected, "routes[0].inspect", "without being looked at"),
        ("routes", whole, "routes[0].inspect", "without being looked at"),
        ("mode", "observe", "mode", "refuse nothing"),
        (
            "routes",
            "[{name: a, match: {paths: [/a]}, observe: [text]}]",
            "routes[0].observe",
            "refuse nothing",
        ),
        ("state_dir", &open.display().to_string(), "state_dir", "chmod 700"),
        ("client", weak, "client.secret", "fewer than 32"),
        ("client", repeated, "client.secret", "few different"),
        ("client", copied, "client.secret", "an example"),
        ("client", "{trusted_proxies: [127.0.0.1]}", "client.secret", "not set"),
        ("client", "{secret: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}", "client.trusted_proxies", "TLS"),
        ("admin", "{token: swordfish}", "admin.token", "fewer than 32"),
        ("admin", same, "admin.token", "same as client.secret"),
    ] {
        let (good, said) = checked(&scratch, case.0, case.1);
        let [finding, verdict] = said.lines().collect::<Vec<_>>()[..] else { panic!("{case:?}: {said}") };
        assert!(!good && verdict.ends_with("not ready for production: 1 to change"), "{said}");
        assert_told(finding, case);
    }
}

/// What may be meant must not be a refusal, or nobody could go on; untold it would be found after the incident.
#[test]
fn production_tells_what_is_worth_a_look_and_does_not_refuse_it() {
    let scratch = Scratch::new();
    let markdown = "{chat: {sink: markdown, action: sanitize}}";
    let files = "[{name: a, match: {paths: [/import]}, inspect: off}]";
    for case in [
        ("log", "{access: {to: off}}", "log.access.to", "can't be found out"),
        ("log", "{level: debug}", "log.level", "is debug"),
        ("watch", "off", "watch", "no alert"),
        ("admin", "{listen: '0.0.0.0:9464'}", "admin.listen", "plain text"),
        ("hygiene", "{get_body: allow}", "hygiene.get_body", "next request"),
        ("upstream_defaults", "{max_fails: 0}", "upstream_defaults.max_fails", "is 0"),
        ("sanitize", markdown, "sanitize.chat", "one backtick"),
        (
            "sanitize",
            "{fields: {/bio: {sink: markdown, action: sanitize}}}",
            "sanitize.fields[\"/bio\"]",
            "one backtick",
        ),
        ("uploads", "{types: off}", "uploads.types", "any type"),
        ("leaks", "off", "leaks", "made of"),
        ("duplicates", "off", "duplicates", "paid for again"),
        (
            "security_headers",
            "{headers: {X-Frame-Options: off}}",
            "security_headers.headers.X-Frame-Options",
            "is off",
        ),
        ("origin", "{same_site: allow}", "origin.same_site", "sister domain"),
        ("cors", "{allowed_origins: ['http://chat.example']}", "cors.allowed_origins", "http://"),
        ("cors", "{allowed_origins: ['null']}", "cors.allowed_origins", "sandboxed"),
        ("cors", "{private_network: true}", "cors.private_network", "private network"),
        ("text", "{chat: {fields: []}}", "text.chat.fields", "is empty"),
        ("limits", "{ai: {by: [device]}}", "limits.ai.by", "leave out"),
        ("routes", files, "routes[0].inspect", "without being looked at"),
        ("routes", "[{name: a, match: {paths: [/a]}, leaks: off}]", "routes[0].leaks", "made of"),
    ] {
        let (good, said) = checked(&scratch, case.0, case.1);
        let [finding] = said.lines().collect::<Vec<_>>()[..] else { panic!("{case:?}: {said}") };
        assert!(good && finding.starts_with("tidegate: worth a look: "), "{said}");
        assert_told(finding, case);
    }
}

/// A token that nobody set, on a port that everybody reaches, is no way in: but neither is it what somebody meant.
#[test]
fn production_refuses_a_public_admin_port_without_a_token() {
    let checked = ["check", "--production", "--upstream", "http://127.0.0.1:1", "--admin", "0.0.0.0:9464"];
    let (good, said) = check(&mut tidegate(&checked));
    assert!(
        !good && said.contains("--admin: admin.listen: ") && said.contains("there is no token"),
        "{said}"
    );
    let (_, said) = check(tidegate(&checked).env("STATE_DIR", "/nonexistent/state"));
    assert!(said.contains("worth a look: --admin: admin.listen: "), "{said}");
}

/// A secret in a file that anyone on the machine can read is known to every app on it.
#[test]
fn production_warns_of_secrets_that_others_can_read() {
    let scratch = Scratch::new();
    checked(&scratch, "threads", "2");
    let file = scratch.path("tidegate.yaml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("everyone's");
    let checked = ["check", "--production", "-c", &file.display().to_string()];
    let (good, said) = check(&mut tidegate(&checked));
    assert!(
        good && said.contains("tidegate.yaml:4: client.secret: ") && said.contains("chmod o-r"),
        "{said}"
    );
    assert!(!said.contains("8f1d0c3b"), "{said}");
}

/// Whoever asks what a gate does has to see which route lets what pass.
#[test]
fn explain_names_the_guards_of_each_route_that_only_observe() {
    let scratch = Scratch::new();
    let file = scratch.path("tidegate.yaml");
    let settings = "upstream: http://127.0.0.1:1\nobserve: [text, hosts]\n\
                    routes: [{name: a, match: {paths: [/a]}, observe: []}]\n";
    std::fs::write(&file, settings).expect("writes");
    let said = tidegate(&["check", "--explain", "-c", &file.display().to_string()]).output().expect("runs");
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    assert!(said.contains("\n  a: nothing\n  default: hosts, text\n"), "{said}");
    std::fs::write(&file, "upstream: http://127.0.0.1:1\nobserve: [breaker]\n").expect("writes");
    let (good, said) = check(&mut tidegate(&["check", "-c", &file.display().to_string()]));
    assert!(!good && said.contains("tidegate.yaml:2") && said.contains("concurrency"), "{said}");
}

/// The shipped defaults serve a newcomer on this machine; they must not pass for more.
#[test]
fn the_defaults_are_not_good_enough_for_production() {
    let (good, said) = check(&mut tidegate(&["check", "--production", "--upstream", "http://127.0.0.1:1"]));
    let keys = ["client.trusted_proxies", "client.secret", "state_dir", "hosts"];
    assert!(!good && said.contains("4 to change"), "{said}");
    for key in keys {
        assert!(said.contains(&format!(": {key}: ")), "{key}: {said}");
    }
}
