//! Redis servers that a test starts for itself: on a free port of this machine, in a directory of their own, gone with it.
//!
//! It stands alone, so that the unit tests of the store use it as well.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server. It keeps its port and its directory over a restart.
pub struct RedisServer {
    program: &'static str,
    /// Where it listens.
    pub port: u16,
    /// Where its files are.
    pub directory: PathBuf,
    args: Vec<String>,
    password: Option<&'static str>,
    child: Option<Child>,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As `start`, with further settings as on its command line.
    pub fn start_with(args: &[&str]) -> Self {
        let mut server = Self::new("redis-server", None);
        server.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        server.resume();
        server
    }

    /// A server that wants a password.
    pub fn start_locked(password: &'static str) -> Self {
        let mut server = Self::new("redis-server", Some(password));
        server.args = vec!["--requirepass".into(), password.into()];
        server.resume();
        server
    }

    /// A Sentinel that watches the master on `port` under the name `tidegate`, and decides alone.
    pub fn start_sentinel(port: u16) -> Self {
        let mut server = Self::new("redis-sentinel", None);
        let settings = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor tidegate 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds tidegate 400\nsentinel failover-timeout tidegate 2000\n",
            server.port,
            server.directory.display()
        );
        let file = server.directory.join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        server.args = vec![file.display().to_string()];
        server.resume();
        server
    }

    /// One that is not started yet.
    pub fn new(program: &'static str, password: Option<&'static str>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-redis-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { program, port: free_port(), directory, args: Vec::new(), password, child: None }
    }

    /// The URL of it.
    pub fn url(&self) -> String {
        let password = self.password.map_or(String::new(), |password| format!(":{password}@"));
        format!("redis://{password}127.0.0.1:{}", self.port)
    }

    /// Starts it, or starts it again with what it had on disk; returns once it answers.
    pub fn resume(&mut self) {
        let mut command = Command::new(self.program);
        command.args(&self.args).current_dir(&self.directory);
        if self.program == "redis-server" {
            let port = self.port.to_string();
            let directory = self.directory.display().to_string();
            command.args(["--port", &port, "--bind", "127.0.0.1", "--dir", &directory, "--save", ""]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!(
                "{} can't be started: {error}; install it: apt-get install -y redis-server redis-sentinel",
                self.program
            )
        }));
        self.wait_until("answer", |server| {
            server.tell(&["PING"]).is_some_and(|answer| answer.starts_with(b"+PONG"))
        });
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it where it stands: its sockets stay open, and nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Has it do something; `None` if it does not answer. The answer is as it is on the wire, its first 64 KiB.
    pub fn tell(&self, command: &[&str]) -> Option<Vec<u8>> {
        #[allow(clippy::disallowed_methods, reason = "a test may block")]
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut bytes = Vec::new();
        let login = self.password.map(|password| ["AUTH", password]);
        for words in login.iter().map(|words| &words[..]).chain([command]) {
            bytes.clear();
            write!(bytes, "*{}\r\n", words.len()).ok()?;
            for word in words {
                write!(bytes, "${}\r\n{word}\r\n", word.len()).ok()?;
            }
            stream.write_all(&bytes).ok()?;
            bytes = vec![0; 65_536];
            let length = stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
            bytes.truncate(length);
        }
        Some(bytes)
    }

    /// Waits until `holds`.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < PATIENCE, "{} on port {} does not {what}", self.program, self.port);
            #[allow(clippy::disallowed_methods, reason = "a test may block")]
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
