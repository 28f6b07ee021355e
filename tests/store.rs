//! Where the program keeps what it counts, and what it says when it can't.

mod common;

use common::{Program, Scratch, Upstream};
use tidegate::config::{Config, Overrides};
use tokio::task::block_in_place;

fn state_dir(environment: &[(&str, &str)]) -> Option<String> {
    let env = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
    let text = "upstream: http://127.0.0.1:3000\n";
    let config = Config::from_text(text, "test.yaml", &Overrides::default(), &env).expect("settings");
    config.server_settings().expect("settings").state_dir.map(|path| path.display().to_string())
}

/// A set-up of one line would forget all limits at each restart, or two gates would meet in one directory.
#[test]
fn state_is_kept_where_programs_keep_theirs() {
    let (home, xdg) = (("HOME", "/home/ann"), ("XDG_STATE_HOME", "/var/xdg"));
    let (systemd, set) = (("STATE_DIRECTORY", "/var/lib/tidegate:/other"), ("STATE_DIR", "/srv/state"));
    let kept = |environment: &[(&str, &str)]| state_dir(environment).expect("a directory");
    assert_eq!(kept(&[home]), "/home/ann/.local/state/tidegate/127.0.0.1:8080");
    assert_eq!(kept(&[home, xdg]), "/var/xdg/tidegate/127.0.0.1:8080");
    assert_eq!(kept(&[home, xdg, systemd]), "/var/lib/tidegate/127.0.0.1:8080");
    assert_eq!(kept(&[home, xdg, systemd, set]), "/srv/state");
    assert_eq!(
        kept(&[home, ("XDG_STATE_HOME", "relative"), ("LISTEN", "[::1]:80")]),
        "/home/ann/.local/state/tidegate/[::1]:80"
    );
    assert_eq!((state_dir(&[]), state_dir(&[("HOME", "")])), (None, None));
}

/// Who asked for a store that outlives restarts must not get one that doesn't, and not hear of it.
#[test]
fn an_embedded_store_wants_a_directory() {
    let text = "upstream: http://127.0.0.1:3000\nstore: {kind: embedded}\n";
    let config = Config::from_text(text, "test.yaml", &Overrides::default(), &|_| None).expect("settings");
    let clock = tidegate::state::Clock::system();
    let error = config.resolve(&clock).err().expect("refused").to_string();
    assert!(error.contains("store.kind") && error.contains("STATE_DIR"), "{error}");
}

/// The program itself, with nothing but an upstream: it keeps its state at home, and does without where it has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_gate_keeps_its_state_at_home_if_it_can() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let upstream = format!("http://{}", upstream.address());
    let arguments = ["--upstream", &*upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let home = scratch.path("home").display().to_string();
    let program = Program::start(&arguments, &[("HOME", &*home)]);
    block_in_place(|| program.says("traffic on http://"));
    let kept = scratch.path("home/.local/state/tidegate/127.0.0.1:0");
    assert!(kept.join("store/tidegate.db").exists() && kept.join("admin.token").exists());
    program.signal("TERM");
    assert!(block_in_place(|| program.ended()));

    let file = scratch.path("file");
    std::fs::write(&file, "no directory").expect("writes");
    let file = file.display().to_string();
    let program = Program::start(&arguments, &[("HOME", &*file)]);
    block_in_place(|| program.says("begin anew at each start"));
    block_in_place(|| program.says("traffic on http://"));
}

/// Two processes that write to one store would ruin it; the second has to say whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_of_the_first() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let upstream = format!("http://{}", upstream.address());
    let arguments = ["--upstream", &*upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let state = scratch.path("state").display().to_string();
    let first = Program::start(&arguments, &[("STATE_DIR", &*state)]);
    block_in_place(|| first.says("traffic on http://"));
    let second = Program::start(&arguments, &[("STATE_DIR", &*state)]);
    let told = block_in_place(|| second.says("another process"));
    assert!(told.contains(&first.id().to_string()) && told.contains(&state), "{told}");
    assert!(!block_in_place(|| second.ended()));
    drop(first);
    // Killed, not stopped: nothing of it is in the way.
    let third = Program::start(&arguments, &[("STATE_DIR", &*state)]);
    block_in_place(|| third.says("traffic on http://"));
}
