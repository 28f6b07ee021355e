//! README, reference and shipped settings tell all that the program says and takes, and nothing that it doesn't.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use common::{Answer, Ask, Upstream, Via, gate};
use serde_json::Value;
use tidegate::cli::UNREAD;
use tidegate::config::{Config, Overrides};
use tidegate::guard::{Event, Reason};
use tidegate::observe::{AilmentKind, Anomaly, Variable};

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../docs/reference.md");
const SHIPPED: &str = include_str!("../conf/tidegate.yaml");

/// The cells of a table whose head begins with `head`, row by row.
#[track_caller]
fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(head));
    assert!(lines.next().is_some(), "no table begins with {head}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn codes(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Someone who is refused looks the code up: it has to be there, with the status and event that they saw.
#[test]
fn every_reason_is_explained_as_it_is() {
    let event = |reason: &Reason| reason.event().map_or("–".into(), |event| format!("`{}`", event.name()));
    let real: BTreeMap<_, _> = Reason::ALL
        .iter()
        .map(|reason| (format!("`{}`", reason.code()), [reason.status().as_str().to_owned(), event(reason)]))
        .collect();
    let written = |row: &Vec<&str>| (row[0].to_owned(), [row[1].to_owned(), row[2].to_owned()]);
    assert_eq!(table(REFERENCE, "| code | status |").iter().map(written).collect::<BTreeMap<_, _>>(), real);
    for row in table(README, "| guard |") {
        assert_eq!(real.get(row[3]).map(|[status, _]| status.as_str()), Some(row[2]), "README: {row:?}");
    }
}

/// A request with all that a log line may tell of.
fn telling(ask: Ask) -> Ask {
    let fields = [
        ("authorization", "Bearer a-key"),
        ("x-session-id", "a-session"),
        ("x-device-id", "a-device"),
        ("referer", "http://localhost/page"),
        ("user-agent", "docs"),
    ];
    fields.into_iter().fold(ask, |ask, (name, value)| ask.field(name, value))
}

/// Someone who is paged by an event, or by health, looks its code up.
#[test]
fn every_event_and_every_ailment_is_explained() {
    let listed =
        |head| -> BTreeSet<_> { table(REFERENCE, head).iter().flat_map(|row| codes(row[0])).collect() };
    let names = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(listed("| event | when |"), names(&Event::ALL.map(Event::name)));
    assert_eq!(listed("| `reason` of the watch |"), names(&Anomaly::ALL.map(Anomaly::code)));
    let kinds: Vec<_> = AilmentKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(listed("| `code` of health |"), names(&kinds));
}

/// Someone who writes a log format of their own has only this table to write it from.
#[test]
fn every_variable_of_a_log_format_is_explained() {
    let rows = table(REFERENCE, "| variable | value |");
    let written: BTreeSet<_> = rows.iter().flat_map(|row| codes(row[0])).collect();
    let real = Variable::ALL.iter().map(|variable| format!("${}", variable.name())).collect();
    assert_eq!(written, real);
}

/// Someone who builds a dashboard takes names, types and labels from the table.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_described_as_it_is() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "observe: [hosts]\n");
    gate.ask(Via::H1, &Ask::chat().host("evil.example")).await;
    gate.ask(Via::H1, &Ask::chat()).await;
    gate.ask(Via::H1, &Ask::post("/api/chat", "{")).await;
    gate.ask(Via::H1, &Ask::post("/api/chat", r#"{"message":"<script>"}"#)).await;
    gate.events("threat_detected").await;
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
    let mut real = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            real.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((series, labels)) = line.split_once('{') {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part));
            let name = base.filter(|name| real.contains_key(*name)).unwrap_or(series);
            let (_, known) = real.get_mut(name).unwrap_or_else(|| panic!("{series} has no type"));
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            known.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    let written: BTreeMap<_, _> = table(REFERENCE, "| name | type |")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), (row[1].to_owned(), codes(row[2]))))
        .collect();
    assert_eq!(written, real);
}

/// Someone who reads a log line or an answer by program has to find each member's meaning.
#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_every_document_is_described() {
    let upstream = Upstream::ok().await;
    let settings = "limits: {ai: {windows: [2/min]}}\nadmin: {listen: '127.0.0.1:0', token: a-token}\n";
    let gate = gate(upstream.address(), settings);
    let mut answers = Vec::new();
    for target in ["/api/chat?page=1", "/v1/chat/completions", "/v1/messages", "/api/chat"] {
        answers.push(gate.ask(Via::H1, &telling(Ask::post(target, r#"{"message":"<script>"}"#))).await);
    }
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 429, 429]);
    answers.push(gate.ask(Via::H1, &telling(Ask::get("/auth/rate-limit-status"))).await);
    answers.drain(..2);
    for row in table(REFERENCE, "| request |") {
        for path in codes(row[0]).iter().filter_map(|request| request.strip_prefix("GET ")) {
            let answer = gate.admin_ask(&Ask::get(path)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            answers.push(answer);
        }
    }
    for switch in ["circuit-breaker/open", "circuit-breaker/auto", "maintenance/on", "maintenance/off"] {
        let ask = Ask::post(format!("/api/security/{switch}"), "").field("authorization", "Bearer a-token");
        answers.push(gate.admin_ask(&ask).await);
    }
    let is_json = |answer: &&Answer| answer.field("content-type").is_some_and(|kind| kind.contains("json"));
    let mut members = BTreeSet::new();
    answers.iter().filter(is_json).for_each(|answer| names(&answer.json(), &mut members));
    for log in [gate.access_log("rate-limit-status").await, gate.events(r#""after":"serving""#).await] {
        for line in log.lines() {
            names(&serde_json::from_str(line).expect("a line is a JSON object"), &mut members);
        }
    }
    let described = |name: &&String| ["`", "\""].iter().any(|q| REFERENCE.contains(&format!("{q}{name}{q}")));
    let missing: Vec<_> = members.iter().filter(|name| !described(name)).collect();
    assert!(missing.is_empty(), "not in docs/reference.md: {missing:?}");
}

/// Adds the names of all members of all objects in `value`.
fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                into.insert(name.clone());
                names(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, into)),
        _ => {}
    }
}

/// A key that the shipped file doesn't show is one that nobody finds.
#[test]
fn every_key_stands_in_the_shipped_settings() {
    let schema: Value = serde_json::from_str(&Config::schema()).expect("the schema is JSON");
    let (mut known, mut path) = (BTreeSet::new(), Vec::new());
    keys(&schema, &schema, &mut path, &mut known);
    let written = written_keys();
    // A route's overrides are the top level's keys, shown there, and an upstream's are those of its defaults or of the top
    // level; the keys of each limit are shown once.
    let default = |key: &[String]| [&["upstream_defaults".to_owned()], key].concat();
    let shown = |key: &&Vec<String>| {
        written.iter().any(|written| fits(key, written))
            || (key[0] == "routes" && key.len() > 1 && known.contains(&key[1..]))
            || (key[0] == "upstreams" && key.len() > 2 && known.contains(&default(&key[2..])))
            || (key[0] == "upstreams" && key.len() > 3 && known.contains(&key[2..]))
    };
    let missing: Vec<_> = known.iter().filter(|key| !shown(key)).map(|key| key.join(".")).collect();
    assert!(missing.is_empty(), "not in conf/tidegate.yaml: {missing:?}");
}

/// Every key path of a schema; `*` stands for a name that people choose.
fn keys(node: &Value, root: &Value, path: &mut Vec<String>, into: &mut BTreeSet<Vec<String>>) {
    if let Some(name) = node["$ref"].as_str().and_then(|at| at.strip_prefix("#/$defs/")) {
        keys(&root["$defs"][name], root, path, into);
    }
    for (name, value) in node["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        into.insert(path.clone());
        keys(value, root, path, into);
        path.pop();
    }
    if node["additionalProperties"].is_object() {
        path.push("*".into());
        keys(&node["additionalProperties"], root, path, into);
        path.pop();
    }
    let lists = ["anyOf", "oneOf", "allOf"].map(|word| node[word].as_array());
    let parts = lists.into_iter().flatten().flatten().chain(node.get("items"));
    parts.for_each(|part| keys(part, root, path, into));
}

/// Every key path in the shipped file: as set, in examples that are commented out, and as explained in a list of
/// words (`#   counts   page, …`), which stands above its key.
fn written_keys() -> BTreeSet<Vec<String>> {
    let (mut found, mut open, mut words) = (BTreeSet::new(), Vec::<(usize, String)>::new(), Vec::new());
    for line in SHIPPED.lines() {
        let line = if line.starts_with("#  ") { line.replacen('#', " ", 1) } else { line.to_owned() };
        let text = line.trim_start().trim_start_matches("- ");
        let indent = line.len() - text.len();
        let (word, rest) = text.split_once([':', ' ']).unwrap_or((text, ""));
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b)) {
            continue;
        }
        if !text[word.len()..].starts_with(':') || !(rest.is_empty() || rest.starts_with(' ')) {
            words.push(word.to_owned());
            continue;
        }
        open.retain(|(depth, _)| *depth < indent);
        open.push((indent, word.to_owned()));
        let path: Vec<_> = open.iter().map(|(_, word)| word.clone()).collect();
        if path.len() == 1 {
            let explained = words.drain(..).map(|word| vec![path[0].clone(), "*".into(), word]);
            found.extend(explained);
        }
        found.insert(path);
    }
    found
}

fn fits(key: &[String], written: &[String]) -> bool {
    key.len() == written.len() && key.iter().zip(written).all(|(key, written)| key == written || key == "*")
}

/// A name that is set and does nothing, or works and is told nowhere.
#[test]
fn every_environment_name_is_listed() {
    let settings = SHIPPED.lines().filter(|line| !line.starts_with('#'));
    let read: BTreeSet<String> = settings
        .flat_map(|line| line.split("${").skip(1))
        .filter_map(|name| name.split_once([':', '}']))
        .map(|(name, _)| name.to_owned())
        .collect();
    let listed: BTreeSet<_> =
        table(REFERENCE, "| name | key |").iter().flat_map(|row| codes(row[0])).collect();
    assert_eq!(listed, read);
    for name in table(README, "| limit |").iter().flat_map(|row| codes(row[4])) {
        assert!(read.contains(&name), "README names {name}, which is not read");
    }
}

/// Someone who sets one of these believes to be protected by it.
#[test]
fn every_environment_name_that_is_not_read_is_listed() {
    let listed: BTreeSet<_> =
        table(REFERENCE, "| name not read |").iter().flat_map(|row| codes(row[0])).collect();
    assert_eq!(listed, UNREAD.map(str::to_owned).into());
    let unread: Vec<_> = UNREAD.iter().filter(|name| SHIPPED.contains(&format!("${{{name}"))).collect();
    assert!(unread.is_empty(), "read after all: {unread:?}");
}

/// What `--help` offers has to be in the reference.
#[test]
fn every_command_and_option_is_listed() {
    let commands = [
        "",
        "run",
        "demo",
        "check",
        "explain",
        "reload",
        "health",
        "breaker",
        "maintenance on",
        "maintenance off",
        "ban",
        "unban",
        "bans",
        "top",
        "limits show",
        "limits reset",
        "limits set",
        "limits auto",
        "audit list",
        "audit verify",
        "state stats",
    ];
    for command in commands {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let program = program.args(command.split_whitespace()).arg("--help");
        let help = String::from_utf8(program.output().expect("the program runs").stdout).expect("UTF-8");
        let lead = |line: &str| line.trim_start().split(' ').next().unwrap_or_default().to_owned();
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).map(lead);
        let commands = commands.take_while(|word| !word.is_empty()).filter(|word| word != "help");
        let options = help.split([' ', ',', '\n']).filter(|word| word.starts_with('-'));
        let options = options.map(|word| word.trim_end_matches(')').to_owned());
        for word in commands.map(|word| format!("tidegate {word}")).chain(options) {
            assert!(REFERENCE.contains(&word), "docs/reference.md does not tell of {word}");
        }
    }
}

/// What a newcomer copies out of the README has to work, and to be as near to production as it says.
#[test]
fn the_examples_of_the_readme_are_good() {
    let blocks: Vec<_> =
        README.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 1, "{blocks:?}");
    let clock = tidegate::state::ManualClock::new(tidegate::state::Timestamp::from_micros(1));
    let read = |text: &str| {
        let config = Config::from_text(text, "README.md", &Overrides::default(), &|_| None);
        let config = config.unwrap_or_else(|why| panic!("{why}: {text}"));
        config.resolve(&clock.clock()).map(drop).unwrap_or_else(|why| panic!("{why}: {text}"));
        config
    };
    let configs: Vec<_> = blocks.into_iter().map(read).collect();
    let found = configs[0].check_production().expect("can be read");
    let keys: Vec<_> = found.errors.iter().map(|error| error.path.as_str()).collect();
    // What depends on the machine: a proxy that ends TLS, and a secret that nobody else may have.
    assert_eq!(keys, ["client.trusted_proxies", "client.secret"]);
    assert_eq!(found.warnings.to_string(), "");
}

/// A name that is misspelt in what people deploy sets nothing, and nobody hears of it.
#[test]
fn what_is_deployed_sets_only_names_that_are_read() {
    let deployed = [
        include_str!("../Dockerfile"),
        include_str!("../compose.yaml"),
        include_str!("../systemd/tidegate.service"),
    ];
    let words = deployed.iter().flat_map(|text| text.lines().filter(|line| !line.starts_with('#')));
    let words =
        words.flat_map(|line| line.split_whitespace()).map(|word| word.trim_start_matches("Environment="));
    let name = |word: &str| {
        let (name, _) = word.split_once(['=', ':'])?;
        let sound = name.len() > 3 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        sound.then(|| name.to_owned())
    };
    let names: BTreeSet<_> = words.filter_map(name).collect();
    assert!(names.len() > 4, "{names:?}");
    let unread: Vec<_> = names.iter().filter(|name| !SHIPPED.contains(&format!("${{{name}:-"))).collect();
    assert!(unread.is_empty(), "not read: {unread:?}");
}
