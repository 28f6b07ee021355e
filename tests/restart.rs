//! Restarts of the program itself under load: by socket activation, by handing sockets over.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Ask, Load, PATIENCE, Program, Scratch, Upstream, Wire, within};
use tokio::task::block_in_place;

/// How often the program is restarted.
fn restarts() -> usize {
    std::env::var("RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// A settings file without limits.
fn settings(scratch: &Scratch, upstream: &Upstream) -> String {
    let file = scratch.path("own.yaml");
    let text = format!(
        "upstream: http://{}\nthreads: 1\nlog: {{access: {{to: off}}}}\n\
         limits: {{pages: off, api: off, api-user: off, session: off, tenant: off, ai: off}}\n",
        upstream.address()
    );
    std::fs::write(&file, text).expect("writes");
    file.display().to_string()
}

async fn served(address: SocketAddr) -> u16 {
    Wire::to(address).await.ask(Ask::get("/page").bytes()).await.status
}

/// `systemctl restart` must cost nobody an answer: the socket stays, and who connects meanwhile waits.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_by_socket_activation_lose_no_request() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let file = settings(&scratch, &upstream);
    let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = socket.local_addr().expect("bound");
    let start = || {
        let arguments = ["-c", &file, "--admin", "127.0.0.1:0"];
        let program = Program::activated(&arguments, &[], &[("traffic", &socket)]);
        block_in_place(|| program.says(&format!("traffic on http://{address}")));
        program
    };
    let mut program = start();
    let load = Load::on(address);
    for _ in 0..restarts() {
        let before = load.answered();
        within("answers", async {
            while load.answered() < before + 20 {
                common::a_moment().await
            }
        })
        .await;
        program.signal("TERM");
        assert!(block_in_place(|| program.ended()));
        program = start();
    }
    let answered = load.answered();
    let failures = load.failures().await;
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
}

/// Without a service manager, `--upgrade` and SIGQUIT replace the program, and must cost nobody an answer either.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_by_upgrade_lose_no_request() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let file = settings(&scratch, &upstream);
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("binds");
    let (traffic, admin, state) = (free(), free(), scratch.path("state"));
    let (listen, admin_listen, state_dir) =
        (traffic.to_string(), admin.to_string(), state.display().to_string());
    let start = |more: &[&str]| {
        let arguments = [&["run", "-c", &file, "--listen", &listen, "--admin", &admin_listen], more].concat();
        Program::start(&arguments, &[("STATE_DIR", &state_dir)])
    };
    let serves = |program: &Program| block_in_place(|| program.says(&format!("traffic on http://{traffic}")));
    let id = || std::fs::read_to_string(state.join("tidegate.pid")).expect("a process id").trim().to_owned();
    let mut program = start(&[]);
    serves(&program);
    let load = Load::on(traffic);
    for _ in 0..restarts() {
        assert_eq!(id(), program.id().to_string());
        let next = start(&["--upgrade"]);
        waits(&state.join("upgrade/sockets")).await;
        program.signal("QUIT");
        serves(&next);
        assert!(block_in_place(|| program.ended()));
        program = next;
        let mut wire = Wire::to(admin).await;
        assert_eq!(wire.ask(Ask::get("/readyz").host("localhost").bytes()).await.status, 200);
    }
    let answered = load.answered();
    let failures = load.failures().await;
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
    assert_eq!(id(), program.id().to_string());
    program.signal("TERM");
    assert!(block_in_place(|| program.ended()));
    assert!(!state.join("tidegate.pid").exists(), "the id of a process that is gone stays behind");
}

/// Someone who cuts an app off while the program is being replaced must find it cut off afterwards; and what the old process
/// is told when it is about to go must not be lost without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_during_an_upgrade_is_kept() {
    let ((upstream, asked, go), scratch) = (Upstream::on_cue().await, Scratch::new());
    let file = settings(&scratch, &upstream);
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("binds");
    let (traffic, admin, state) = (free(), free(), scratch.path("state"));
    let (listen, admin_listen, state_dir) =
        (traffic.to_string(), admin.to_string(), state.display().to_string());
    let environment = [("STATE_DIR", &*state_dir), ("TIDEGATE_ADMIN_TOKEN", "a-token-for-tests")];
    let start = |more: &[&str]| {
        let arguments = [&["run", "-c", &file, "--listen", &listen, "--admin", &admin_listen], more].concat();
        Program::start(&arguments, &environment)
    };
    let serves = |program: &Program| block_in_place(|| program.says(&format!("traffic on http://{traffic}")));
    let switch = |path: &str| {
        Ask::post(format!("/api/security/{path}"), "")
            .host("localhost")
            .field("authorization", "Bearer a-token-for-tests")
            .bytes()
    };
    let old = start(&[]);
    serves(&old);
    let mut to_old = Wire::to(admin).await;
    let mut held = Wire::to(traffic).await;
    held.send(Ask::chat().bytes()).await;
    within("the upstream's being asked", asked.notified()).await;

    let new = start(&["--upgrade"]);
    waits(&state.join("upgrade/sockets")).await;
    assert_eq!(to_old.ask(switch("circuit-breaker/open")).await.status, 200);
    assert_eq!(to_old.ask(switch("maintenance/on")).await.status, 200);
    old.signal("QUIT");
    serves(&new);
    let refused = Wire::to(traffic).await.ask(Ask::chat().bytes()).await;
    common::assert_refused(&refused, 503, "maintenance");

    let late = to_old.ask(switch("maintenance/off")).await;
    assert_eq!(late.status, 503, "{}", late.text());
    assert!(late.text().contains("another process"), "{}", late.text());
    let mut to_new = Wire::to(admin).await;
    assert_eq!(to_new.ask(switch("maintenance/off")).await.status, 200);
    let refused = Wire::to(traffic).await.ask(Ask::chat().bytes()).await;
    common::assert_refused(&refused, 503, "circuit_open");
    go.notify_one();
    assert_eq!(held.answer().await.status, 200);
    assert!(block_in_place(|| old.ended()));
}

async fn waits(place: &Path) {
    within("a process that waits for sockets", async {
        while !place.exists() {
            common::a_moment().await
        }
    })
    .await;
}

/// SIGQUIT with nobody to take over must not end the service: a slip of an upgrade script would be an outage.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_take_over_means_serving_on() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let (file, state) = (settings(&scratch, &upstream), scratch.path("state").display().to_string());
    let arguments = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let program = Program::start(&arguments, &[("STATE_DIR", &state)]);
    let line = block_in_place(|| program.says("traffic on http://"));
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next()).expect("an address");
    program.signal("QUIT");
    let why = block_in_place(|| program.says("serving on"));
    assert!(why.contains("--upgrade"), "{why}");
    assert_eq!(served(address.parse().expect("an address")).await, 200);
    // And with nobody who runs, the taker says so.
    let alone = Program::start(&[&arguments[..], &["--upgrade"]].concat(), &[("RUNTIME_DIRECTORY", &state)]);
    let why = block_in_place(|| alone.says("handed its sockets over"));
    assert!(why.contains("SIGQUIT"), "{why}");
    assert!(!block_in_place(|| alone.ended()));
}

/// Sockets are told apart by name or by address; one that belongs to nothing would keep its clients waiting for ever.
#[tokio::test(flavor = "multi_thread")]
async fn passed_sockets_are_told_apart() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let file = settings(&scratch, &upstream);
    let [a, b] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("binds"));
    let [at, bt] = [&a, &b].map(|socket| socket.local_addr().expect("bound"));
    let says = |program: &Program, wanted: &str| block_in_place(|| program.says(wanted));
    let both = format!("traffic on http://{bt}, admin on http://{at}");
    let named = Program::activated(&["-c", &file], &[], &[("admin", &a), ("traffic", &b)]);
    says(&named, &both);
    assert_eq!(served(bt).await, 200);
    drop(named);
    let (listen, admin) = (bt.to_string(), at.to_string());
    let addressed = ["-c", &file, "--listen", &listen, "--admin", &admin];
    let unnamed = Program::activated(&addressed, &[], &[("a.socket", &a), ("b.socket", &b)]);
    says(&unnamed, &both);
    assert_eq!(served(bt).await, 200);
    drop(unnamed);
    let stray = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", &admin];
    let stray = Program::activated(&stray, &[], &[("a.socket", &a), ("b.socket", &b)]);
    let why = says(&stray, "belongs to nothing");
    assert!(why.contains("b.socket") && why.contains("FileDescriptorName"), "{why}");
}

/// The service manager starts what depends on the gate, and times its stop, by what the gate says.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let (file, place) = (settings(&scratch, &upstream), scratch.path("notify"));
    let manager = UnixDatagram::bind(&place).expect("binds");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let told = || {
        let mut message = [0; 1024];
        let length = block_in_place(|| manager.recv(&mut message)).expect("is told");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let place = place.display().to_string();
    let arguments = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let program = Program::start(&arguments, &[("NOTIFY_SOCKET", &place)]);
    assert_eq!(told(), "READY=1\n");
    program.signal("HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(told().starts_with("READY=1\nSTATUS=Settings read again"));
    std::fs::write(&file, "threads: 2\nupstream: http://127.0.0.1:1\n").expect("writes");
    program.signal("HUP");
    told();
    let refused = told();
    assert!(refused.starts_with("READY=1\nSTATUS=Serving under the old settings"), "{refused}");
    assert!(refused.contains("own.yaml:1: threads"), "{refused}");
    program.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert!(block_in_place(|| program.ended()));
}

/// Someone who presses Ctrl-C twice means it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain() {
    let ((upstream, asked, _go), scratch) = (Upstream::on_cue().await, Scratch::new());
    let file = settings(&scratch, &upstream);
    let arguments = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let program = Program::start(&arguments, &[]);
    let line = block_in_place(|| program.says("traffic on http://"));
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next()).expect("an address");
    let mut wire = Wire::to(address.parse().expect("an address")).await;
    wire.send(Ask::chat().bytes()).await;
    within("the upstream's being asked", asked.notified()).await;
    program.signal("INT");
    block_in_place(|| program.says("stopping"));
    let start = Instant::now();
    program.signal("INT");
    assert!(block_in_place(|| program.ended()));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
