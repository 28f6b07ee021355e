//! Dockerfile, compose.yaml and the systemd units are no code that is compiled, and yet name the program's flags,
//! variables, ports and directories: here they are held to the program.

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use common::{Program, Scratch};
use tidegate::config::{Config, Node, Overrides, Span, from_node, parse};

const DOCKERFILE: &str = include_str!("../Dockerfile");
const COMPOSE: &str = include_str!("../compose.yaml");
const SERVICE: &str = include_str!("../systemd/tidegate.service");
const SOCKET: &str = include_str!("../systemd/tidegate.socket");

/// Where each of them installs the program.
const PROGRAM: &str = "/usr/local/bin/tidegate";

/// What stands behind an instruction, every time it is given.
fn instructions(name: &str) -> impl Iterator<Item = &'static str> {
    DOCKERFILE.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[track_caller]
fn instruction(name: &str) -> &'static str {
    let mut all = instructions(name);
    let only = all.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(all.next().is_none(), "more than one {name}");
    only
}

/// The words of a list as JSON writes it.
#[track_caller]
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|why| panic!("{list}: {why}"))
}

fn environment() -> BTreeMap<&'static str, &'static str> {
    instruction("ENV").split_whitespace().filter_map(|pair| pair.split_once('=')).collect()
}

/// The value of a key of a unit.
#[track_caller]
fn key<'a>(unit: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix('=');
    unit.lines().find_map(line).unwrap_or_else(|| panic!("no {name}"))
}

/// Whether the program takes these arguments; it is not run with them.
fn takes(arguments: &[&str]) -> bool {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    program.args(arguments).arg("--help").output().expect("the program runs").status.success()
}

fn defaults() -> BTreeMap<String, String> {
    let config = Config::from_text("", "none", &Overrides::default(), &|_| None).expect("the defaults");
    let lines: Vec<String> = config.explain().lines().map(str::to_owned).collect();
    let pair = |line: &String| {
        let (key, rest) = line.split_once(" = ")?;
        Some((key.to_owned(), rest.split("    #").next()?.trim().to_owned()))
    };
    lines.iter().filter_map(pair).collect()
}

/// How long a stop takes at most, by default.
fn drain() -> Duration {
    span(&defaults()["drain"])
}

#[track_caller]
fn span(text: &str) -> Duration {
    let tree = parse(&format!("time: {text}"), "t.yaml", &|_| None).expect("parses");
    from_node::<Span>(node(&tree, &["time"])).unwrap_or_else(|why| panic!("{text}: {why}")).0
}

/// An image that starts another program than was put in, or shows a port on which nobody listens, serves nobody.
#[test]
fn the_dockerfile_agrees_with_itself() {
    let copied: Vec<_> = instructions("COPY").filter_map(|copy| copy.rsplit(' ').next()).collect();
    let environment = environment();
    assert!(copied.contains(&PROGRAM) && copied.contains(&environment["STATE_DIR"]), "{copied:?}");
    assert_eq!(words(instruction("ENTRYPOINT")), [PROGRAM]);
    let (_, check) = instruction("HEALTHCHECK").split_once("CMD ").expect("a command");
    assert_eq!(words(check), [PROGRAM, "health"]);
    assert_eq!(instruction("EXPOSE"), environment["LISTEN"].rsplit(':').next().expect("a port"));
    assert!(environment["LISTEN"].starts_with("0.0.0.0:"), "a container's loopback is nobody's");
    assert_eq!(instruction("VOLUME"), environment["STATE_DIR"]);
    let user = instruction("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    assert!(DOCKERFILE.contains(&format!("--chown={user} ")), "its user can't write its own state");
    let (_, profile) = instructions("RUN").find_map(|run| run.split_once("--profile ")).expect("a build");
    let profile = profile.split_whitespace().next().expect("a profile");
    let manifest = include_str!("../Cargo.toml");
    assert!(manifest.contains(&format!("[profile.{profile}]")), "{profile}");
    assert!(copied_from(profile), "the program is copied from where the build does not put it");
    let rust = instructions("FROM").find_map(|from| from.strip_prefix("rust:")).expect("a compiler");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(rust.starts_with(wanted.trim_matches('"')), "built with Rust {rust}, which needs {wanted}");
}

fn copied_from(profile: &str) -> bool {
    instructions("COPY").any(|copy| copy.contains(&format!("/source/target/{profile}/tidegate ")))
}

/// Whoever runs the image has a gate that is well, with its state where the volume is.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_starts_as_the_image_starts_it() {
    let scratch = Scratch::new();
    let state = scratch.path("state").display().to_string();
    // As in the image, but for the ports, which may be taken here, and the directory.
    let with = |name: &'static str, value: &'static str| match name {
        "STATE_DIR" => (name, state.as_str()),
        "LISTEN" => (name, "0.0.0.0:0"),
        _ => (name, value),
    };
    let mut environment: Vec<_> = environment().into_iter().map(|(name, value)| with(name, value)).collect();
    environment.extend([("UPSTREAM_URL", "http://127.0.0.1:1"), ("ADMIN_LISTEN", "127.0.0.1:0")]);
    let entry = words(instruction("ENTRYPOINT"));
    let arguments: Vec<&str> = entry.iter().skip(1).map(String::as_str).collect();
    let program = Program::start(&arguments, &environment);
    let line = program.says("traffic on http://");
    let (_, admin) = line.rsplit_once("admin on http://").expect("an address");
    let health = |admin: &str| {
        let mut health = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        health.arg("health").env_clear().envs(environment.iter().copied()).env("ADMIN_LISTEN", admin);
        health.output().expect("the program runs").status.code()
    };
    assert_eq!(health(admin), Some(0));
    assert_eq!(health("127.0.0.1:1"), Some(1));
    assert!(std::path::Path::new(&state).join("admin.token").exists(), "no state in {state}");
    program.signal("TERM");
    assert!(tokio::task::block_in_place(|| program.ended()));
}

fn node<'a>(tree: &'a Node, path: &[&str]) -> &'a Node {
    tree.at(path).unwrap_or_else(|| panic!("no {path:?}"))
}

fn texts(node: &Node) -> Vec<&str> {
    node.items().iter().filter_map(|item| Some(&*item.scalar()?.text)).collect()
}

/// The example that people start from: the gate finds the app, is found at its port, keeps its state, and may finish.
#[test]
fn compose_agrees_with_the_image_and_the_program() {
    let tree = parse(COMPOSE, "compose.yaml", &|_| None).unwrap_or_else(|why| panic!("{why}"));
    let gate = |key: &str| node(&tree, &["services", "gate", key]);
    let text = |node: &Node| node.scalar().expect("a text").text.to_string();
    let upstream = text(node(gate("environment"), &["UPSTREAM_URL"]));
    let (app, _) = upstream.trim_start_matches("http://").split_once(':').expect("host and port");
    assert!(tree.at(&["services", app]).is_some(), "there is no service {app}");
    assert!(tree.at(&["services", app, "ports"]).is_none(), "{app} can be reached past the gate");
    let port = environment()["LISTEN"].rsplit(':').next().expect("a port");
    assert!(texts(gate("ports")).iter().all(|mapping| mapping.ends_with(&format!(":{port}"))));
    let volumes = texts(gate("volumes"));
    let (volume, place) = volumes[0].split_once(':').expect("a volume and its place");
    assert_eq!(place, environment()["STATE_DIR"]);
    assert!(tree.at(&["volumes", volume]).is_some(), "there is no volume {volume}");
    assert!(span(&text(gate("stop_grace_period"))) > drain(), "it is killed before it has finished");
    assert!(tree.at(&["services", "gate", "read_only"]).is_some() && texts(gate("cap_drop")) == ["ALL"]);
    // The commands in its comments.
    let told = COMPOSE.lines().filter_map(|line| line.trim_start().strip_prefix("# "));
    let told = told.collect::<Vec<_>>().join(" ");
    assert!(told.contains("[run, -c, ") && takes(&["run", "-c", "x"]), "{told}");
    assert!(told.contains(&format!("{PROGRAM} reload -c ")) && takes(&["reload", "-c", "x"]), "{told}");
}

/// A unit that starts the program with a flag that it does not know never comes up; one that kills it early cuts answers.
#[test]
fn the_units_agree_with_the_program() {
    for name in ["ExecStart", "ExecReload"] {
        let mut command = key(SERVICE, name).split_whitespace();
        assert_eq!(command.next(), Some(PROGRAM), "{name}");
        let arguments: Vec<_> = command.collect();
        assert!(takes(&arguments), "{name}: {arguments:?}");
    }
    assert!(span(key(SERVICE, "TimeoutStopSec")) > drain(), "it is killed before it has finished");
    assert_eq!(key(SOCKET, "ListenStream"), defaults()["listen"]);
    // The name by which the program knows it: src/server/sockets.rs.
    assert_eq!(key(SOCKET, "FileDescriptorName"), "traffic");
    let state = SERVICE.lines().find_map(|line| line.strip_prefix("Environment=STATE_DIR=%S/"));
    assert_eq!(state, Some(key(SERVICE, "StateDirectory")));
    assert_eq!(key(SERVICE, "StateDirectoryMode"), "0700");
    let files: u64 = key(SERVICE, "LimitNOFILE").parse().expect("a number");
    let connections: u64 = defaults()["connections.max"].parse().expect("a number");
    assert!(
        files > 2 * connections,
        "{files} descriptors for {connections} connections and as many to the app"
    );
    assert!(takes(&["run"]) && SERVICE.contains(&format!("Requires={}", "tidegate.socket")));
}
