//! The program as it is started: what it reads, and what it says of what it does not.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
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
