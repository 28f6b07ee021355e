//! Settings: errors that say where and what to do, and values that come from where they should.

use std::path::{Path, PathBuf};

use tidegate::config::{Config, Overrides, Settings};
use tidegate::state::{ManualClock, Timestamp};

type Env<'a> = &'a [(&'a str, &'a str)];

fn look<'a>(env: Env<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn parse(yaml: &str, env: Env<'_>) -> Result<Config, String> {
    Config::from_text(yaml, "test.yaml", &Overrides::default(), &look(env)).map_err(|error| error.to_string())
}

fn settings(yaml: &str, env: Env<'_>) -> Result<Settings, String> {
    let clock = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
    parse(yaml, env)?.resolve(&clock.clock()).map_err(|error| error.to_string())
}

/// The error of a file whose third line is wrong.
#[track_caller]
fn error(yaml: &str) -> String {
    let whole = format!("upstream: http://127.0.0.1:1\n\n{yaml}\n");
    match settings(&whole, &[]) {
        Ok(_) => panic!("passes: {yaml}"),
        Err(error) => error,
    }
}

/// An operator at night needs the line, the key, and what to write instead.
#[test]
fn errors_say_where_and_what_to_do() {
    let cases: [(&str, &[&str]); 19] = [
        ("limts: {}", &["test.yaml:3", "limts", "limits"]),
        ("limits: {ai: {windws: [5/min]}}", &["test.yaml:3", "limits.ai", "windws", "windows"]),
        ("caps: {body: {jsn: 1MiB}}", &["test.yaml:3", "caps.body", "jsn", "json"]),
        ("timeouts: {write: 5}", &["test.yaml:3", "timeouts.write", "30s"]),
        ("timeouts: {write: 5 parsecs}", &["test.yaml:3", "timeouts.write", "30s"]),
        ("caps: {uri: 8 hands}", &["test.yaml:3", "caps.uri", "KiB"]),
        ("limits: {ai: {windows: [5 a minute]}}", &["test.yaml:3", "limits.ai.windows", "/min"]),
        ("limits: {ai: {windows: [0/min]}}", &["test.yaml:3", "limits.ai.windows", "off"]),
        ("limits: {ai: {by: [nobody]}}", &["test.yaml:3", "limits.ai.by", "address"]),
        ("connections: {max: -1}", &["test.yaml:3", "connections.max"]),
        ("connections: {max: many}", &["test.yaml:3", "connections.max"]),
        ("origin: ~", &["test.yaml:3", "origin", "off"]),
        ("origin:", &["test.yaml:3", "origin", "off"]),
        ("sanitize: {path: {sink: plain}}", &["test.yaml:3", "sanitize.path.sink", "html"]),
        (
            "sanitize: {fields: {bio: {sink: rich, action: sanitize}}}",
            &["test.yaml:3", "sanitize.fields", "`bio`", "start with `/`"],
        ),
        ("listen: nowhere", &["test.yaml:3", "listen"]),
        ("addresses: {deny: [10.0.0.0/33]}", &["test.yaml:3", "addresses.deny"]),
        ("cors: {allowed_origins: ['app.example']}", &["test.yaml:3", "cors.allowed_origins"]),
        ("routes: [{name: a, match: {path: [/a]}}]", &["test.yaml:3", "routes[0]", "path", "paths"]),
    ];
    let mut failures = Vec::new();
    for (yaml, wanted) in cases {
        let said = error(yaml);
        let missing: Vec<_> = wanted.iter().filter(|word| !said.contains(**word)).collect();
        if !missing.is_empty() {
            failures.push(format!("{yaml}: lacks {missing:?}: {said}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Of two values for one key, one would silently not count.
#[test]
fn a_key_that_stands_twice_is_an_error_that_names_both_lines() {
    let said = error("drain: 1s\ntimeouts:\n  write: 1s\n  first_byte: 1s\n  write: 2s");
    assert!(["timeouts", "write", "5", "7"].iter().all(|word| said.contains(word)), "{said}");
}

/// A time of zero would cut every request, at the top level as in a route.
#[test]
fn a_time_of_zero_is_an_error() {
    let said = error("timeouts: {stream_idle: 0s}");
    assert!(["test.yaml:3: timeouts.stream_idle", "1s"].iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(said.lines().count(), 1, "told more than once: {said}");
    let said = error("upstream_defaults: {connect_timeout: 0s}");
    assert!(said.contains("test.yaml:3: upstream_defaults.connect_timeout"), "{said}");
    let said = error("streams: {heartbeat: 0s}");
    assert!(["test.yaml:3: streams.heartbeat", "off"].iter().all(|word| said.contains(word)), "{said}");
    let said = error("routes: [{name: a, match: {paths: [/a]}, timeouts: {write: 0ms}}]");
    assert!(said.contains("test.yaml:3: routes[0].timeouts.write"), "{said}");
}

/// A key in a field that is logged would be in every line of the log.
#[test]
fn a_key_can_not_stand_where_it_is_logged() {
    for name in ["User-Agent", "referer", "host", "x-request-id"] {
        let said = error(&format!("client: {{key_headers: [x-api-key, {name}]}}"));
        assert!(said.contains("client.key_headers") && said.contains("logged"), "{said}");
    }
}

/// A route that can't be reached is a rule that does not hold.
#[test]
fn a_route_in_the_shadow_of_another_is_an_error() {
    let said = error(
        "routes:\n- {name: wide, match: {paths: ['/api/*']}}\n- {name: narrow, match: {paths: [/api/chat]}}",
    );
    assert!(["test.yaml:5", "routes[1]", "wide"].iter().all(|word| said.contains(word)), "{said}");
    let twice = error("routes:\n- {name: a, match: {paths: [/a]}}\n- {name: a, match: {paths: [/b]}}");
    assert!(twice.contains("routes[1]") && twice.contains("\"a\""), "{twice}");
    let fine = "upstream: http://127.0.0.1:1\nroutes:\n- {name: narrow, match: {paths: [/api/chat]}}\n- {name: wide, match: {paths: ['/api/*']}}\n";
    settings(fine, &[]).map(drop).expect("the narrow one first is fine");
}

/// All that is wrong should be told at once where that can be.
#[test]
fn nothing_of_yaml_that_surprises_is_taken() {
    for yaml in
        ["a: &x [*x]", "drain: !!str 5s", "? [a]\n: b", "--- \nx: 1\n--- \ny: 2", "drain: [", "\tdrain: 5s"]
    {
        let said = error(yaml);
        assert!(said.contains("test.yaml:"), "{yaml:?}: {said}");
    }
}

/// Without an app behind it there is nothing to guard, and the newcomer has to learn how to name it.
#[test]
fn a_missing_upstream_says_how_to_name_it() {
    let said = settings("", &[]).err().expect("no upstream");
    assert!(["upstream", "UPSTREAM_URL"].iter().all(|word| said.contains(word)), "{said}");
    settings("", &[("UPSTREAM_URL", "http://127.0.0.1:3000")]).map(drop).expect("the environment names it");
    let said = settings("upstream: https://127.0.0.1:1/path\n", &[]).err().expect("not http://host:port");
    assert!(said.contains("test.yaml:1") && said.contains("upstream"), "{said}");
}

/// A variable that is not set must not become an empty setting.
#[test]
fn an_unset_variable_is_an_error() {
    let said = error("admin: {token: '${NO_SUCH_TOKEN}'}");
    assert!(["test.yaml:3", "admin.token", "NO_SUCH_TOKEN"].iter().all(|word| said.contains(word)), "{said}");
}

/// The names that these apps' operators use already have to work.
#[test]
fn the_usual_names_set_what_they_say() {
    let upstream = "upstream: http://127.0.0.1:1\n";
    let shown = |env: Env<'_>| parse(upstream, env).expect("parses").explain();
    let cases: [(Env<'_>, &[&str]); 8] = [
        (&[("RATE_LIMIT_AI_PER_MINUTE", "7")], &["7/min", "RATE_LIMIT_AI_PER_MINUTE"]),
        (&[("RATE_LIMIT_AI_PER_HOUR", "77")], &["77/h", "RATE_LIMIT_AI_PER_HOUR"]),
        (&[("RATE_LIMIT_PER_MINUTE", "8")], &["8/min", "RATE_LIMIT_PER_MINUTE"]),
        (&[("RATE_LIMIT_REQUESTS_PER_MINUTE", "9")], &["9/min", "RATE_LIMIT_REQUESTS_PER_MINUTE"]),
        (
            &[("ALLOWED_ORIGINS", "https://a.example,https://b.example")],
            &["https://b.example", "ALLOWED_ORIGINS"],
        ),
        (&[("LOG_LEVEL", "debug")], &["log.level", "debug", "LOG_LEVEL"]),
        (&[("LISTEN", "127.0.0.1:81")], &["127.0.0.1:81", "LISTEN"]),
        (&[("SESSION_COOKIE_NAME", "sid")], &["sid", "SESSION_COOKIE_NAME"]),
    ];
    for (env, wanted) in cases {
        let text = shown(env);
        let line = text.lines().find(|line| line.contains(wanted[wanted.len() - 1])).unwrap_or_default();
        assert!(wanted.iter().all(|word| line.contains(word)), "{env:?}: {line:?}");
        settings(upstream, env).map(drop).unwrap_or_else(|error| panic!("{env:?}: {error}"));
    }
    for (name, value) in [("SECURE_HEADERS", "False"), ("CORS_ALLOW_CREDENTIALS", "true"), ("DEBUG", "1")] {
        settings(upstream, &[(name, value)])
            .map(drop)
            .unwrap_or_else(|error| panic!("{name}={value}: {error}"));
    }
    let said = settings(upstream, &[("RATE_LIMIT_AI_PER_MINUTE", "lots")]).err().expect("not a number");
    assert!(said.contains("RATE_LIMIT_AI_PER_MINUTE") && said.contains("limits.ai"), "{said}");
}

/// Whoever sets a variable must not be able to set another key.
#[test]
fn a_variable_is_a_value_and_not_yaml() {
    let env = [("SESSION_COOKIE_NAME", "sid\nlisten: 0.0.0.0:1"), ("LISTEN", "127.0.0.1:0")];
    if let Ok(settings) = settings("upstream: http://127.0.0.1:1\n", &env) {
        assert_eq!(settings.server.listen, "127.0.0.1:0");
    }
}

/// What `--explain` prints is pasted into tickets.
#[test]
fn secrets_are_not_shown() {
    let yaml = "upstream: http://127.0.0.1:1\nadmin: {token: literal-secret-0123456789abcdef}\n";
    let env = [("SESSION_SECRET_KEY", "variable-secret-0123456789abcdef")];
    let text = parse(yaml, &env).expect("parses").explain();
    assert!(text.contains("admin.token") && text.contains("client.secret"), "{text}");
    assert!(!text.contains("literal-secret") && !text.contains("variable-secret"), "{text}");
    for wrong in [
        "admin: {token: [hunter2hunter2]}",
        "admin: {token: hunter2}",
        "client: {secret: {hunter2: hunter2}}",
    ] {
        if let Err(said) = settings(&format!("upstream: http://127.0.0.1:1\n{wrong}\n"), &[]) {
            assert!(!said.contains(": hunter2") && !said.contains("\"hunter2hunter2\""), "{said}");
        }
    }
}

/// Secrets that a container gets as files have to arrive.
#[test]
fn a_variable_can_come_from_a_file() {
    let path = std::env::temp_dir().join(format!("tidegate-test-{}-listen", std::process::id()));
    std::fs::write(&path, "127.0.0.1:77\n").expect("writes");
    let env = [("LISTEN_FILE", path.to_str().expect("a path"))];
    let settings = settings("upstream: http://127.0.0.1:1\n", &env);
    std::fs::remove_file(&path).expect("removes");
    assert_eq!(settings.expect("loads").server.listen, "127.0.0.1:77");
}

/// A value without its origin can't be changed by who reads it.
#[test]
fn explain_tells_where_each_value_comes_from() {
    let text = parse("upstream: http://127.0.0.1:1\n\ncaps:\n  uri: 4KiB\n", &[]).expect("parses").explain();
    let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap_or_default().to_owned();
    assert!(
        line("caps.uri").contains("4KiB") && line("caps.uri").contains("test.yaml:4"),
        "{}",
        line("caps.uri")
    );
    let default = line("caps.header_count");
    assert!(default.contains("100") && default.contains("tidegate.yaml:"), "{default}");
}

/// A file that is shipped and does not load is worse than none.
#[test]
fn shipped_files_load() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let yaml_in = |directory: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory)
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default();
        let files = entries.into_iter().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
    };
    let files = [yaml_in(conf.clone()), yaml_in(conf.join("examples"))].concat();
    assert!(files.contains(&conf.join("tidegate.yaml")), "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        settings(&text, &[("UPSTREAM_URL", "http://127.0.0.1:3000")])
            .map(drop)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// An upstream that is misnamed or half described must be told at start, with the line to mend.
#[test]
fn wrong_upstreams_are_told() {
    let cases: [(&str, &[&str]); 14] = [
        ("upstreams: {app: {}}", &["test.yaml:3", "upstreams.app.servers", "names no server"]),
        ("upstreams: {app: {server: [http://a]}}", &["test.yaml:3", "upstreams.app", "servers"]),
        ("upstreams: {app: {servers: [http://a/x]}}", &["test.yaml:3", "upstreams.app.servers", "path"]),
        ("upstreams: {app: {servers: [http://a, http://a]}}", &["test.yaml:3", "twice"]),
        ("upstreams: {app: {servers: http://a, balance: hash}}", &["test.yaml:3", "upstreams.app.balance"]),
        (
            "upstreams: {app: {servers: https://a, tls: {ca: /no/such}}}",
            &["test.yaml:3", "upstreams.app.tls.ca"],
        ),
        (
            "upstreams: {app: {servers: http://a, breaker: {recovery: 0s}}}",
            &["test.yaml:3", "upstreams.app.breaker.recovery"],
        ),
        (
            "upstreams: {app: {servers: http://a, breaker: {a: 1}}}",
            &["test.yaml:3", "upstreams.app.breaker", "a"],
        ),
        (
            "upstreams: {app: {servers: http://a, retries: {max: 11}}}",
            &["test.yaml:3", "upstreams.app.retries.max"],
        ),
        (
            "upstreams: {app: {servers: http://a, timeouts: {first_byte: 0s}}}",
            &["test.yaml:3", "upstreams.app.timeouts.first_byte"],
        ),
        (
            "upstreams: {app: {servers: http://a, timeouts: {first: 1s}}}",
            &["test.yaml:3", "upstreams.app.timeouts", "first_byte"],
        ),
        ("upstream_defaults: {connect_timeout: 0s}", &["test.yaml:3", "upstream_defaults.connect_timeout"]),
        ("name_servers: [nobody]", &["test.yaml:3", "name_servers", "nobody"]),
        (
            "routes: [{name: a, match: {paths: [/a]}, upstream: ap}]",
            &["test.yaml:3", "routes[0].upstream", "ap"],
        ),
    ];
    for (yaml, wanted) in cases {
        let said = error(yaml);
        assert!(wanted.iter().all(|word| said.contains(word)), "{yaml}: {said}");
    }
}

/// One app fails otherwise than another, and takes other times: what is said of one must count for it, and for it alone.
#[test]
fn an_upstream_has_rules_of_its_own() {
    let yaml = "upstream: http://127.0.0.1:1\nbreaker: {recovery: 40s, min_calls: 7}\ntimeouts: {write: 9s, first_byte: 8s}\n\
                upstreams:\n  slow:\n    servers: http://127.0.0.1:2\n    breaker: {recovery: 5s}\n    retries: off\n    \
                timeouts: {first_byte: 7m}\n  bare: {servers: http://127.0.0.1:3, breaker: off}\nroutes:\n\
                - {name: a, match: {paths: [/a]}, upstream: slow}\n\
                - {name: b, match: {paths: [/b]}, upstream: slow, timeouts: {first_byte: 3s}}\n\
                - {name: c, match: {paths: [/c]}, upstream: http://127.0.0.1:2}\n\
                - {name: d, match: {paths: [/d]}, upstream: bare}\n";
    let settings = settings(yaml, &[]).expect("sound");
    let told = |at: usize| {
        let route = &settings.routes[at];
        let failures = &route.upstream.settings().failures;
        let breaker = failures.breaker.as_ref().map(|breaker| format!("{breaker:?}")).unwrap_or_default();
        let recovery = ["5s", "40s"].into_iter().find(|time| breaker.contains(&format!("recovery: {time}")));
        assert!(breaker.is_empty() || breaker.contains("min_calls: 7"), "{breaker}");
        let times = [route.timeouts.first_byte, route.timeouts.write].map(|time| time.as_secs());
        (recovery, failures.retries.is_some(), times)
    };
    assert_eq!(told(0), (Some("5s"), false, [420, 9]));
    assert_eq!(told(1), (Some("5s"), false, [3, 9]));
    assert_eq!(told(2), (Some("40s"), true, [8, 9]));
    assert_eq!(told(3), (None, true, [8, 9]));
    let text = parse(yaml, &[]).expect("parses").explain();
    for (key, line) in [("breaker.recovery = 5s", 7), ("retries = off", 8), ("timeouts.first_byte = 7m", 9)] {
        let said = text.lines().find(|said| said.contains(&format!("upstreams.slow.{key}")));
        assert!(said.is_some_and(|said| said.ends_with(&format!("test.yaml:{line}"))), "{key}: {said:?}");
    }
}

/// Two routes to one upstream must share its connections and what is known of its health; a third must not get them.
#[test]
fn an_upstream_is_one_however_it_is_named() {
    let yaml = "upstream: app\nupstreams: {app: {servers: 'http://127.0.0.1:1,http://127.0.0.1:2'}}\nroutes:\n\
                - {name: a, match: {paths: [/a]}, upstream: [http://127.0.0.1:1, http://127.0.0.1:2]}\n\
                - {name: b, match: {paths: [/b]}, upstream: http://127.0.0.1:1}\n";
    let settings = settings(yaml, &[]).expect("sound");
    let names: Vec<&str> = settings.routes.iter().map(|route| &*route.upstream.name).collect();
    assert_eq!(names, ["app", "b", "app"]);
    assert_eq!(settings.upstreams.len(), 2);
}
