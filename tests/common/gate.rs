//! Starts the product itself, on free ports, with a clock that the test moves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidegate::config::{Config, Overrides, Settings};
use tidegate::server::{Launch, Running, Source};
use tidegate::state::{ManualClock, Timestamp};
use tokio::task::block_in_place;

use super::{Answer, Ask, H2, Via, Wire, within};

/// A running gate, until dropped. Tests that hold one need a runtime of several threads.
pub struct Gate {
    running: Option<Running>,
    hand: ManualClock,
    upstream: SocketAddr,
    scratch: Scratch,
}

/// Starts a gate in front of `upstream`; `settings` is YAML that goes beside what the harness sets.
#[track_caller]
pub fn gate(upstream: SocketAddr, settings: &str) -> Gate {
    Gate::start(upstream, settings).unwrap_or_else(|why| panic!("the gate does not start: {why}\n{settings}"))
}

/// As [`gate`], with settings that no file can set.
#[track_caller]
pub fn gate_with(upstream: SocketAddr, settings: &str, adjust: impl FnOnce(&mut Settings)) -> Gate {
    Gate::start_with(upstream, settings, adjust)
        .unwrap_or_else(|why| panic!("the gate does not start: {why}"))
}

impl Gate {
    /// As [`gate`], where a test expects that it may fail.
    pub fn start(upstream: SocketAddr, settings: &str) -> Result<Self, String> {
        Self::start_with(upstream, settings, |_| ())
    }

    fn start_with(
        upstream: SocketAddr,
        settings: &str,
        adjust: impl FnOnce(&mut Settings),
    ) -> Result<Self, String> {
        let scratch = Scratch::new();
        let file = scratch.path("settings.yaml");
        std::fs::write(&file, whole(upstream, &scratch, settings)).map_err(|e| e.to_string())?;
        let read = move || {
            let text = std::fs::read_to_string(&file).expect("settings are a readable file");
            Config::from_text(&text, "test.yaml", &Overrides::default(), &|_| None)
        };
        // The year 2026: far from zero, so that no window reaches before the beginning of time.
        let hand = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let running = block_in_place(|| {
            let config = read().map_err(|e| text(&e))?;
            let mut settings = config.resolve(&hand.clock()).map_err(|e| text(&e))?;
            adjust(&mut settings);
            let source = Source { config, read: Box::new(read) };
            Launch::new(settings, hand.clock()).reloading(source).start().map_err(|e| text(&e))
        })?;
        Ok(Self { running: Some(running), hand, upstream, scratch })
    }

    /// Writes other settings in the place of those that it was started with.
    pub fn rewrite(&self, settings: &str) {
        let text = whole(self.upstream, &self.scratch, settings);
        std::fs::write(self.scratch.path("settings.yaml"), text).expect("writes");
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("runs until it is dropped")
    }

    pub fn traffic(&self) -> SocketAddr {
        self.running().traffic()
    }

    pub fn admin(&self) -> SocketAddr {
        self.running().admin()
    }

    /// Moves the gate's clock.
    pub fn advance(&self, by: Duration) {
        self.hand.advance(by);
    }

    /// Moves the gate's clock past every window, so that limits have no part in what follows.
    pub fn forget_draws(&self) {
        self.hand.advance(Duration::from_secs(25 * 3600));
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(&self, via: Via, ask: &Ask) -> Answer {
        match via {
            Via::H1 => Wire::to(self.traffic()).await.ask(ask.bytes()).await,
            Via::H2 => match H2::to(self.traffic()).await.ask(ask).await {
                Ok(answer) => answer,
                Err(error) => panic!("no answer over h2c to {} {}: {error:?}", ask.method, ask.target),
            },
        }
    }

    /// Asks the admin port over HTTP/1.1.
    pub async fn admin_ask(&self, ask: &Ask) -> Answer {
        Wire::to(self.admin()).await.ask(ask.bytes()).await
    }

    /// What stands in the access log, once `wanted` does.
    pub async fn access_log(&self, wanted: &str) -> String {
        log(&self.scratch.path("access.log"), wanted).await
    }

    /// What stands in the event log, once `wanted` does.
    pub async fn events(&self, wanted: &str) -> String {
        log(&self.scratch.path("events.log"), wanted).await
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let running = self.running.take();
        block_in_place(|| drop(running));
    }
}

/// Settings with all that the harness needs.
fn whole(upstream: SocketAddr, scratch: &Scratch, settings: &str) -> String {
    let (access, events) = (scratch.path("access.log"), scratch.path("events.log"));
    let (access, events) = (access.display(), events.display());
    let own = [
        ("upstream", format!("http://{upstream}")),
        ("listen", "127.0.0.1:0".into()),
        ("admin", "{listen: '127.0.0.1:0'}".into()),
        ("threads", "1".into()),
        ("drain", "200ms".into()),
        // Tests are refused more often than anybody should be.
        ("bans", "off".into()),
        ("reputation", "off".into()),
        ("log", format!("{{access: {{to: '{access}'}}, events: {{to: '{events}'}}}}")),
    ];
    let missing = |key: &str| !settings.lines().any(|line| line.starts_with(&format!("{key}:")));
    let own = own.into_iter().filter(|(key, _)| missing(key));
    own.map(|(key, value)| format!("{key}: {value}\n")).chain([settings.to_owned()]).collect()
}

/// Logs are written behind the answer.
async fn log(path: &Path, wanted: &str) -> String {
    within(&format!("{wanted} in {}", path.display()), async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.contains(wanted) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// A directory of a test's own, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fails unless `answer` refuses with this status and reason: in the field, and in a body that is JSON.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    let got = (answer.status, answer.field("x-tidegate-reason").unwrap_or_default());
    assert_eq!(got, (status, reason), "{}", answer.text());
    assert!(answer.whole, "the refusal is cut off: {answer:?}");
    assert!(answer.json().to_string().contains(reason), "the body does not say {reason}: {}", answer.text());
}
