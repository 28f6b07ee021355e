//! The program itself, killed again and again under load: what was served must be counted, always.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Ask, Program, Scratch, Upstream, Wire};
use smallvec::smallvec;
use tidegate::proxy::client::SubjectId;
use tidegate::state::admission::{Outcome, Settlement};
use tidegate::state::budget::{BudgetSpec, Calendar, Hold};
use tidegate::state::claim::{Claim, ClaimKey};
use tidegate::state::embedded::{EmbeddedConfig, EmbeddedStore, OnFailure};
use tidegate::state::{
    AdmissionId, Ban, Clock, Demand, Draw, LimitSpec, MemoryConfig, Store, Subject, Window,
};
use tokio::task::{JoinSet, block_in_place};

/// How often the program is killed, and for how long at most.
fn rounds() -> usize {
    std::env::var("KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(50)
}

const LONGEST: Duration = Duration::from_secs(60);

/// Requests that may be made within the hour: more than there will be.
const MAX: u64 = 1_000_000;

/// What is left of a session's limit, as the program tells.
async fn left(address: SocketAddr, session: &str) -> u64 {
    let ask = Ask::get("/auth/rate-limit-status").field("x-session-id", session);
    let status = Wire::to(address).await.ask(ask.bytes()).await.json();
    let limits = status["limits"].as_array().expect("limits").clone();
    let limit = limits.iter().find(|limit| limit["name"] == "session").expect("the session's limit");
    limit["remaining"].as_u64().expect("a number")
}

/// Someone who could crash the gate would otherwise get a fresh quota with each crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_served_is_forgotten_by_a_kill() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let file = scratch.path("own.yaml");
    let settings = format!(
        "upstream: http://{}\nthreads: 2\nlog: {{access: {{to: off}}, events: {{to: off}}}}\n\
         client: {{secret: the digests of sessions stay the same}}\n\
         limits: {{pages: off, api: off, api-user: off, tenant: off, ai: off, status: off, session: {{windows: [{MAX}/h]}}}}\n",
        upstream.address()
    );
    std::fs::write(&file, settings).expect("writes");
    let (file, state) = (file.display().to_string(), scratch.path("state").display().to_string());
    let start = || {
        let arguments = ["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let program = Program::start(&arguments, &[("STATE_DIR", &state)]);
        let line = block_in_place(|| program.says("traffic on http://"));
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        (program, address.expect("an address").parse::<SocketAddr>().expect("an address"))
    };
    let (began, served) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut asked = 0u64;
    let mut done = 0;
    for round in 0..rounds() {
        let (program, address) = start();
        let counted = MAX - left(address, "s").await;
        let before = served.load(Ordering::SeqCst);
        assert!(counted >= before, "round {round}: {before} served, {counted} counted");
        assert!(counted <= asked, "round {round}: {asked} asked, {counted} counted");
        let sent = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (served, sent) = (served.clone(), sent.clone());
            clients.spawn(async move {
                loop {
                    sent.fetch_add(1, Ordering::SeqCst);
                    let ask = Ask::chat().field("x-session-id", "s").field("connection", "close");
                    if answered(address, &ask).await {
                        served.fetch_add(1, Ordering::SeqCst);
                    } else {
                        return;
                    }
                }
            });
        }
        // At a moment of its own in each round.
        tokio::time::sleep(Duration::from_millis(20 + (round as u64 * 37) % 160)).await;
        program.signal("KILL");
        block_in_place(|| program.ended());
        clients.join_all().await;
        asked += sent.load(Ordering::SeqCst);
        done = round + 1;
        if began.elapsed() > LONGEST {
            break;
        }
    }
    let (_program, address) = start();
    let (counted, served) = (MAX - left(address, "s").await, served.load(Ordering::SeqCst));
    println!("{done} kills: {asked} asked, {counted} counted, {served} served");
    assert!(served > 100 && counted >= served && counted <= asked);
}

/// Whether a request is answered with 200, whole, before the program is killed.
async fn answered(address: SocketAddr, ask: &Ask) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return false };
    let mut answer = Vec::new();
    stream.write_all(&ask.bytes()).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
        && answer.windows(4).any(|end| end == b"\r\n\r\n")
}

/// What the process that is killed counts with.
struct Counts {
    limit: LimitSpec,
    budget: BudgetSpec,
}

impl Counts {
    fn new() -> Self {
        let window = Window { length: Duration::from_secs(86_400), max: MAX };
        Self {
            limit: LimitSpec::new("kill", [window]).expect("a limit"),
            budget: BudgetSpec::new("kill", MAX, Calendar::Month, "UTC").expect("a budget"),
        }
    }

    async fn stand(&self, store: &EmbeddedStore) -> (u64, u64) {
        let draws = [Draw::one(&self.limit, Subject::global())];
        let holds = [Hold { budget: &self.budget, subject: Subject::global(), amount: 0 }];
        let left = store.standings(&draws).await.expect("counted")[0].remaining;
        let balance = store.balances(&holds).await.expect("counted")[0];
        assert_eq!(balance.held, 0, "nobody holds anything any more");
        (MAX - left, balance.spent)
    }

    async fn admit(&self, store: &EmbeddedStore, id: u64) -> bool {
        let keep = Duration::from_secs(3600);
        let claims = [Claim { key: ClaimKey(id.into()), content: 1, keep }];
        let draws = [Draw::one(&self.limit, Subject::global())];
        let holds = [Hold { budget: &self.budget, subject: Subject::global(), amount: 10 }];
        let demand =
            Demand { id: Some(AdmissionId(id.into())), claims: &claims, draws: &draws, holds: &holds };
        store.admit(&demand).await.expect("decided").is_granted()
    }
}

fn open_store(directory: &Path) -> EmbeddedStore {
    let config = EmbeddedConfig {
        directory: directory.to_owned(),
        implied: false,
        on_failure: OnFailure::Refuse,
        memory: MemoryConfig::default(),
    };
    let store = EmbeddedStore::new(config, Clock::system());
    store.open(Duration::from_secs(5)).unwrap_or_else(|why| panic!("{why}"));
    store
}

fn banned(id: u64) -> Subject {
    Subject::user(SubjectId(id.into()))
}

/// The process that is killed: says what it has done as soon as it is persisted. Runs only when `holds_claims_and_bans…`
/// starts it.
#[tokio::test]
async fn counts_until_it_is_killed() {
    let Ok(directory) = std::env::var("KILL9_STORE") else { return };
    let first: u64 = std::env::var("KILL9_FIRST").expect("set").parse().expect("a number");
    let (store, counts, clock) = (open_store(Path::new(&directory)), Counts::new(), Clock::system());
    let mut out = std::io::stdout();
    let mut say =
        |what: char, id| writeln!(out, "did {what} {id}").and_then(|()| out.flush()).expect("heard");
    for id in first.. {
        assert!(counts.admit(&store, id).await, "{id}");
        store.persist().await.expect("persisted");
        say('g', id);
        if id % 2 == 0 {
            let (outcome, spent) = (Outcome::Served, Some(smallvec![7]));
            store
                .settle(&[Settlement { id: AdmissionId(id.into()), outcome, spent }])
                .await
                .expect("settled");
            say('s', id);
        }
        if id % 5 == 0 {
            let (since, until) = (clock.now(), clock.now().after(Duration::from_secs(3600)));
            let (reason, remembered_until) = ("test".into(), until);
            let subject = banned(id);
            let ban = Ban { subject, since, until, remembered_until, level: 1, reason, by_hand: true };
            assert!(store.ban(ban).await.expect("banned"));
            say('b', id);
        }
    }
}

/// Money that was held or spent, messages that were claimed, and who was banned: none may be forgotten either.
#[tokio::test(flavor = "multi_thread")]
async fn holds_claims_and_bans_are_not_forgotten_by_a_kill() {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let directory = scratch.path("store");
    let (mut first, mut drawn, mut spent) = (1u64, 0u64, 0u64);
    let (mut served, mut banned_ones) = (Vec::new(), Vec::new());
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "counts_until_it_is_killed", "--nocapture"])
            .env("KILL9_STORE", &directory)
            .env("KILL9_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut said: Vec<String> = lines.by_ref().take(20 + 150 * round as usize).collect();
        child.kill().expect("killed");
        child.wait().expect("gone");
        said.extend(lines);
        let mut settled = 0;
        for (what, id) in said.iter().filter_map(|line| line.split_once("did ")?.1.split_once(' ')) {
            let id: u64 = id.parse().expect("a number");
            first = first.max(id + 2);
            match what {
                "g" => (drawn, spent) = (drawn + 1, spent + 10),
                "s" => {
                    (settled, spent) = (settled + 1, spent - 3);
                    served.push(id);
                }
                _ => banned_ones.push(id),
            }
        }
        assert!(settled > 0, "{said:?}");
        let store = open_store(&directory);
        let (counted, cost) = counts.stand(&store).await;
        // One may have been under way, and one settlement.
        assert!((drawn..=drawn + 1).contains(&counted), "round {round}: {drawn} drawn, {counted} counted");
        assert!(
            (spent.saturating_sub(3)..=spent + 10).contains(&cost),
            "round {round}: {spent} spent, {cost} counted"
        );
        (drawn, spent) = (counted, cost);
        for id in &banned_ones {
            assert!(store.bans().in_force(banned(*id)).is_some(), "round {round}: {id} is free");
        }
        for id in served.iter().rev().take(50) {
            assert!(!counts.admit(&store, *id).await, "round {round}: {id} was served already");
        }
        store.close();
    }
}
