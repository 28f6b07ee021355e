//! Clients that ask one thing after another, and take nothing but a whole answer for success.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Ask;

/// How a client uses connections.
#[derive(Clone, Copy)]
enum Habit {
    /// A new one for each request.
    Fresh,
    /// One as long as it is kept, with so much time between an answer and the next request.
    Kept(Duration),
}

/// Clients at work, until they are told to stop.
pub struct Load {
    clients: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// Two clients of each habit, which ask `address` for a page or a chat in turn.
    pub fn on(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let busy = Habit::Kept(Duration::ZERO);
        let pausing = Habit::Kept(Duration::from_millis(100));
        let mut clients = JoinSet::new();
        for habit in [Habit::Fresh, Habit::Fresh, busy, busy, pausing, pausing] {
            clients.spawn(client(address, habit, stop.clone(), answered.clone()));
        }
        Self { clients, stop, answered }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Ends the clients; all that went wrong.
    pub async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await.concat()
    }
}

async fn client(
    address: SocketAddr,
    habit: Habit,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<String> {
    let asks = [Ask::get("/page").bytes(), Ask::chat().bytes()];
    let (mut kept, mut failures) = (None, Vec::new());
    for ask in asks.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let reused = kept.is_some();
        match ask_once(address, kept.take(), ask).await {
            Ok(connection) => {
                answered.fetch_add(1, Ordering::SeqCst);
                kept = connection.filter(|_| matches!(habit, Habit::Kept(_)));
            }
            Err(why) => failures.push(format!("{why} (on a kept connection: {reused})")),
        }
        match habit {
            Habit::Kept(pause) if !pause.is_zero() => tokio::time::sleep(pause).await,
            _ => tokio::task::yield_now().await,
        }
    }
    failures
}

/// One request; the connection comes back if the server keeps it.
async fn ask_once(
    address: SocketAddr,
    kept: Option<TcpStream>,
    ask: &[u8],
) -> Result<Option<TcpStream>, String> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => TcpStream::connect(address).await.map_err(|why| format!("connecting: {why}"))?,
    };
    connection.write_all(ask).await.map_err(|why| format!("sending: {why}"))?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let good = head.starts_with("http/1.1 200");
                let kept = !head.contains("connection: close");
                return if good { Ok(kept.then_some(connection)) } else { Err(format!("answered {text}")) };
            }
        }
        match connection.read_buf(&mut answer).await {
            Ok(0) => return Err(format!("the connection ended after {text:?}")),
            Ok(_) => {}
            Err(why) => return Err(format!("reading: {why}, after {text:?}")),
        }
    }
}
