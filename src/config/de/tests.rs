use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;
use serde::Deserialize;

use super::super::{ByteSize, Named, Rate, Secret, Span, Toggle, parse};
use super::*;

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Traffic {
    Page,
    Api,
    Ai,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Limit {
    max: u16,
    windows: Vec<Rate>,
    #[serde(alias = "per")]
    subject: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Balance {
    #[serde(rename = "round_robin")]
    RoundRobin,
    #[serde(rename = "hash")]
    Hash { header: String },
    #[serde(rename = "weight")]
    Weight(u8),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    debug: bool,
    ratio: Option<f64>,
    offset: Option<i8>,
    workers: Option<NonZeroU32>,
    timeout: Option<Span>,
    body: Option<Toggle<ByteSize>>,
    origins: Vec<String>,
    nets: Vec<ipnet::IpNet>,
    limits: Named<Toggle<Limit>>,
    by_traffic: BTreeMap<Traffic, u32>,
    ports: BTreeMap<u16, String>,
    pair: Option<(u8, u8)>,
    balance: Option<Balance>,
    token: Option<Secret>,
    guard: Option<Strict>,
    either: Option<Either>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Strict {
    kind: Traffic,
    #[serde(default)]
    level: u8,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Either {
    Number(u64),
    Text(String),
}

fn env(name: &str) -> Option<String> {
    match name {
        "ORIGINS" => Some(" https://a.example , ,https://b.example,".into()),
        "TRUE" => Some("True".into()),
        "ONE" => Some("1".into()),
        "WORD" => Some("many".into()),
        "BLANK" => Some(String::new()),
        "KEY" => Some("sk-very-secret".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<File, ConfigErrors> {
    parse(text, "t.yaml", &env).and_then(|tree| from_node(&tree))
}

fn file(text: &str) -> File {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    read(text).expect_err("refused").to_string()
}

/// Every form that a setting can take arrives as written.
#[test]
fn forms_are_read() {
    let f = file(
        "listen: 1.10\ndebug: Yes\nratio: 0.5\noffset: -3\nworkers: \"4\"\ntimeout: 1h30m\nbody: 64KiB\n\
         origins: [a, 'b']\nnets: [10.0.0.0/8]\nby_traffic: {ai: 1, page: 2}\nports: {\"80\": http}\n\
         pair: [1, 2]\nguard: {kind: api}\nbalance: {hash: {header: x}}\neither: 5\n\
         limits: {b: {max: 1}, a: off, c: on, d: {windows: [60/min, 5/10s], per: user}}\n",
    );
    assert_eq!(f.listen.as_deref(), Some("1.10"));
    assert!(f.debug);
    assert_eq!((f.ratio, f.offset, f.workers), (Some(0.5), Some(-3), NonZeroU32::new(4)));
    assert_eq!((f.timeout, f.body), (Some(Span::from_secs(5_400)), Some(Toggle::On(ByteSize(65_536)))));
    assert_eq!((f.origins.len(), f.nets.len(), f.pair), (2, 1, Some((1, 2))));
    assert_eq!(f.by_traffic.get(&Traffic::Ai), Some(&1));
    assert_eq!(f.ports.get(&80).map(String::as_str), Some("http"));
    assert_eq!((f.balance, f.either), (Some(Balance::Hash { header: "x".into() }), Some(Either::Number(5))));
    assert_eq!(f.limits.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
    assert_eq!(f.limits.get("a"), Some(&Toggle::Off));
    assert_eq!(f.limits.get("c"), Some(&Toggle::On(Limit::default())));
    let limit =
        f.limits.get("d").and_then(Toggle::as_option).map(|l| (l.windows.len(), l.subject.as_deref()));
    assert_eq!(limit, Some((2, Some("user"))));
    assert_eq!(f.guard, Some(Strict { kind: Traffic::Api, level: 0 }));
    assert_eq!(file("balance: round_robin").balance, Some(Balance::RoundRobin));
    assert_eq!(file("balance: {weight: 3}").balance, Some(Balance::Weight(3)));
    assert_eq!(file("either: \"5\"").either, Some(Either::Text("5".into())));
}

/// The environment holds only texts: they become what is wanted.
#[test]
fn environment_texts_become_what_is_wanted() {
    let f = file("debug: ${TRUE}\norigins: ${ORIGINS}\nworkers: \"${ONE}\"\nlimits: {a: '${NONE:-off}'}\n");
    assert!(f.debug);
    assert_eq!(f.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(f.workers, NonZeroU32::new(1));
    assert_eq!(f.limits.get("a"), Some(&Toggle::Off));
    assert!(file("debug: ${ONE}").debug);
    assert!(file("origins: ${NONE:-}").origins.is_empty());
    assert_eq!(file("origins: \"${NONE:-a,b}\"").origins, ["a", "b"]);
    assert_eq!(
        errors("origins: a,b"),
        "t.yaml:1: origins: expected a list, found \"a,b\" — write [a, b], or one `- value` a line"
    );
}

/// An unset token is no token; a token that is set but empty is a mistake, not an open door.
#[test]
fn absent_is_not_empty() {
    assert!(file("token: ${NONE:-}").token.is_none());
    assert!(file("timeout: ${BLANK:-}").timeout.is_none());
    let expected = "environment BLANK (t.yaml:1): token: expected a secret that is not empty";
    assert_eq!(errors("token: ${BLANK}"), expected);
    assert_eq!(errors("token: ''"), "t.yaml:1: token: expected a secret that is not empty");
}

/// Each error names the key, the line and what to write.
#[test]
fn errors_say_what_to_write() {
    for (text, wanted) in [
        ("debug: maybe", "debug: expected true or false (on, off, yes and no will do), found \"maybe\""),
        ("debug: 1", "debug: expected true or false (on, off, yes and no will do), found \"1\""),
        (
            "limits: {a: {max: 70000}}",
            "limits.a.max: expected a whole number from 0 to 65535, found \"70000\"",
        ),
        ("limits: {a: {max: 1.5}}", "limits.a.max: expected a whole number from 0 to 65535, found \"1.5\""),
        ("offset: -129", "offset: expected a whole number from -128 to 127, found \"-129\""),
        ("ratio: .inf", "ratio: expected a number, found \".inf\""),
        ("ratio: nan", "ratio: expected a number, found \"nan\""),
        ("workers: 0", "workers: expected a nonzero u32, found \"0\""),
        (
            "timeout: 5",
            "timeout: expected a length of time: whole numbers with the units ms, s, m (or min), h, d, such as 500ms, 30s, 5m or 1h30m, found \"5\"",
        ),
        ("body: []", "body: expected a text or `off`, found a list"),
        (
            "limits: {a: 5}",
            "limits.a: expected a mapping of keys (max, windows, per, subject) or `off`, found \"5\"",
        ),
        ("limits: 5", "limits: expected a mapping of names, found \"5\""),
        ("limits: {a: {windows: [60/min, x]}}", "limits.a.windows[1]: expected a rate: a whole number"),
        ("nets: [10.0.0.0/40]", "nets[0]: "),
        ("listen: [a]", "listen: expected a text, found a list"),
        ("origins: {a: b}", "origins: expected a list, found a mapping"),
        ("pair: [1, 2, 3]", "pair: a list with 1 value too many"),
        ("pair: [1]", "pair: expected a tuple of size 2, found 1 value"),
        ("balance: hash", "balance: hash needs settings — write `hash: …` below the key"),
        (
            "balance: {round_robin: {a: 1}}",
            "balance.round_robin: expected the name alone, without settings, found a mapping",
        ),
        (
            "balance: {hash: {headr: x}}",
            "balance.hash: unknown key \"headr\" — did you mean \"header\"? (known: header)",
        ),
        (
            "balance: {hash: {header: x}, weight: 1}",
            "balance: expected one of round_robin, hash, weight, found a mapping",
        ),
        (
            "balance: hush",
            "balance: not one of the known values, found \"hush\" — did you mean \"hash\"? (known: round_robin, hash, weight)",
        ),
        (
            "by_traffic: {a: 1}",
            "by_traffic.a: not one of the known values, found \"a\" — did you mean \"ai\"? (known: page, api, ai)",
        ),
        ("ports: {\"x\": y}", "ports.x: expected a whole number from 0 to 65535, found \"x\""),
        ("guard: {level: 1}", "guard: the key \"kind\" is missing — add `kind: …`"),
        (
            "limits: {a: {per: x, subject: y}}",
            "limits.a: the key \"subject\" is given under two of its names",
        ),
        (
            "limits:\n  ai:\n    windws: [60/min]",
            "limits.ai: unknown key \"windws\" — did you mean \"windows\"? (known: max, windows, per, subject)",
        ),
        ("zzzzzzzz: 1", "unknown key \"zzzzzzzz\" — known: listen, debug"),
        ("either: [1]", "either: data did not match any variant of untagged enum Either"),
    ] {
        let errors = errors(text);
        let line = text.lines().count();
        assert!(errors.starts_with(&format!("t.yaml:{line}: {wanted}")), "{text}: {errors}");
    }
    assert!(
        errors("workers: ${WORD}")
            .starts_with("environment WORD (t.yaml:1): workers: expected a whole number")
    );
}

/// All that is wrong is said at once, and nothing that only follows from it.
#[test]
fn errors_are_collected() {
    let errors = read(
        "listen: [x]\nlimits:\n  a: {max: many, windws: 1}\n  b: {windows: [x, 1/s, y]}\n\
         guard: {kind: ay, level: 300, x: 1}\ntimeout: 5\nextra: 1\n",
    )
    .expect_err("refused");
    let paths: Vec<_> =
        errors.iter().map(|e| (e.path.as_str(), e.origin.as_ref().map_or(0, |o| o.line))).collect();
    assert_eq!(
        paths,
        [
            ("listen", 1),
            ("limits.a", 3),
            ("limits.a.max", 3),
            ("limits.b.windows[0]", 4),
            ("limits.b.windows[2]", 4),
            ("guard", 5),
            ("guard.kind", 5),
            ("guard.level", 5),
            ("timeout", 6),
            ("", 7),
        ]
    );
}

/// With the bad half of a pair left out it would also be too short, which nobody wrote.
#[test]
fn consequences_are_not_reported() {
    assert_eq!(
        errors("pair: [x, 2]"),
        "t.yaml:1: pair[0]: expected a whole number from 0 to 255, found \"x\""
    );
    assert_eq!(errors("guard: {kind: x}").lines().count(), 1);
}

/// A missing key is reported also beside another error in the same mapping.
#[test]
fn a_missing_key_is_not_taken_for_a_consequence() {
    let errors = read("guard: {level: 300}").expect_err("refused");
    assert_eq!(errors.len(), 2, "{errors}");
}

/// A part of a config knows where in the whole it stands.
#[test]
fn parts_have_a_prefix() {
    let tree = parse("max: x", "t.yaml", &env).expect("parses");
    let errors = from_node_at::<Limit>("routes[2].limits.ai", &tree).expect_err("refused");
    assert!(errors.to_string().starts_with("t.yaml:1: routes[2].limits.ai.max: "), "{errors}");
}

/// An error must not carry a secret into a terminal or a CI log.
#[test]
fn secrets_and_long_values_are_not_repeated() {
    for text in ["token: [sk-very-secret]", "token: {a: sk-very-secret}", "token: {sk-very-secret: 1}"] {
        assert!(!errors(text).contains("sk-very"), "{text}");
    }
    let long = "x".repeat(200);
    for text in ["workers", "timeout", "debug", "balance", "body", "ratio"] {
        let errors = errors(&format!("{text}: {long}"));
        assert!(errors.contains("…") && !errors.contains(&long[..41]), "{errors}");
    }
    assert!(!errors("nets: ['redis://u:hunter2@h']").contains("hunter2"));
    assert!(errors(&format!("{long}: 1")).len() < 500);

    let dir = std::env::temp_dir().join(format!("tidegate-de-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    let path = dir.join("key");
    std::fs::write(&path, "hunter2").expect("file");
    let env = |name: &str| (name == "K_FILE").then(|| path.to_string_lossy().into_owned());
    for key in
        ["workers", "timeout", "debug", "balance", "body", "ratio", "nets", "pair", "guard", "origins: {x"]
    {
        let close = if key.contains('{') { "}" } else { "" };
        let tree = parse(&format!("{key}: '${{K}}'{close}"), "t.yaml", &env).expect("parses");
        let errors = from_node::<File>(&tree).expect_err("refused").to_string();
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    std::fs::remove_dir_all(&dir).expect("clean up");
}

/// `--explain` hides what the types say is secret; a list of names kept by hand would drift.
#[test]
fn secrets_are_found_by_type() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only where the secrets are is asked")]
    struct Keys {
        admin: Option<Secret>,
        apps: Named<Toggle<Vec<Secret>>>,
        name: String,
    }
    let tree = parse("admin: x\nname: y\napps: {a: [k1, k2], b: off}\n", "t.yaml", &env).expect("parses");
    assert_eq!(secret_paths::<Keys>(&tree).expect("valid"), ["admin", "apps.a[0]", "apps.a[1]"]);
}

/// A parser that repeats its input is cut short too.
#[test]
fn foreign_messages_are_cut() {
    #[derive(Debug)]
    struct Parrot;
    impl<'de> Deserialize<'de> for Parrot {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(serde::de::Error::custom(format!("bad URL {text}")))
        }
    }
    let error = |text: &str| {
        let tree = parse(&format!("a: {text}"), "t.yaml", &env).expect("parses");
        from_node::<BTreeMap<String, Parrot>>(&tree).expect_err("refused").to_string()
    };
    assert_eq!(error("x"), "t.yaml:1: a: bad URL x, found \"x\"");
    assert_eq!(error("http://u:p@h"), "t.yaml:1: a: bad URL \"http://(hidden)@h\"");
    assert!(!error(&"y".repeat(60)).contains(&"y".repeat(41)));
}

proptest! {
    /// Reading a config ends in settings or in errors, whatever it says.
    #[test]
    fn nothing_panics(
        key in "listen|debug|ratio|offset|workers|timeout|body|origins|nets|limits|by_traffic|pair|balance|token|guard|either|x",
        value in "(a|off|on|1|-|\\$\\{ORIGINS\\}|'|\\[|\\]|\\{|\\}|: |, |max|kind|windows|60/min|é){0,12}",
    ) {
        if let Err(errors) = read(&format!("{key}: {value}\n")) {
            prop_assert!(!errors.is_empty() && errors.iter().all(|e| e.origin.is_some()));
        }
    }
}
