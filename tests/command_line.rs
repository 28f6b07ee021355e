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
    check(&mut tidegate(&["check", "--production", "-c", &file.display().to_string()]))
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
    let same = "{token: 8f1d0c3b5a7e92640f1d2c3b4a5e6f70}";
    for (key, value, place, part) in [
        ("debug", "true", "debug", "is on"),
        ("hosts", "['*']", "hosts", "any name"),
        ("security_headers", "off", "security_headers", "is off"),
        ("origin", "off", "origin", "is off"),
        ("sanitize", "off", "sanitize", "is off"),
        ("uploads", "off", "uploads", "is off"),
        ("breaker", "off", "breaker", "is off"),
        ("upstreams", "{a: {servers: http://a, breaker: off}}", "upstreams.a.breaker", "is off"),
        ("client", everyone, "client.trusted_proxies", "trusts everyone"),
        ("cors", "{allowed_origins: ['*']}", "cors.allowed_origins", "any site"),
        ("limits", "{ai: off}", "limits.ai", "is off"),
        ("limits", "{api: {enabled: false}}", "limits.api", "is off"),
        ("routes", "[{name: a, match: {paths: [/a]}, origin: off}]", "routes[0].origin", "is off"),
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
        let (good, said) = checked(&scratch, key, value);
        let [finding, verdict] = said.lines().collect::<Vec<_>>()[..] else {
            panic!("{key}: {value}: {said}")
        };
        assert!(!good && verdict.ends_with("not ready for production: 1 to change"), "{said}");
        assert!(
            finding.contains(&format!(": {place}: ")) && finding.contains(part),
            "{key}: {value}: {said}"
        );
        assert!(finding.contains(" — "), "no remedy: {said}");
        assert!(
            ["hunter2", "swordfish", "aaaabbbb", "8f1d0c3b", "32-random"].iter().all(|s| !said.contains(s)),
            "{said}"
        );
        if !["client", "admin"].contains(&key) || value.contains("secret") || value.contains("token") {
            let written = said.contains("tidegate.yaml:") && !said.contains("built-in");
            assert!(written || place == "client.trusted_proxies", "no line: {said}");
        }
    }
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
