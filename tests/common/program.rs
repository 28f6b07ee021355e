//! The program itself, as its own process.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::PATIENCE;

/// Passes standard input on as the first socket, standard output as the second, as a service manager does.
const PASS: &str = r#"LISTEN_PID=$$ exec "$0" "$@" 3<&0 4<&1 </dev/null >/dev/null"#;

/// A running server, killed when dropped.
pub struct Program {
    child: Child,
    said: Receiver<String>,
}

impl Program {
    /// Starts the program; its environment holds only `environment`.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        Self::spawn(command.args(arguments).stdout(Stdio::null()), environment)
    }

    /// As `start`, with listening sockets passed under these names.
    pub fn activated(
        arguments: &[&str],
        environment: &[(&str, &str)],
        sockets: &[(&str, &TcpListener)],
    ) -> Self {
        let pass = |at: usize| match sockets.get(at) {
            Some((_, socket)) => Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor"))),
            None => Stdio::null(),
        };
        let names = sockets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":");
        let count = sockets.len().to_string();
        let told = [environment, &[("LISTEN_FDS", &*count), ("LISTEN_FDNAMES", &*names)]].concat();
        let mut command = Command::new("sh");
        command.args(["-c", PASS, env!("CARGO_BIN_EXE_tidegate")]).args(arguments);
        Self::spawn(command.stdin(pass(0)).stdout(pass(1)), &told)
    }

    fn spawn(command: &mut Command, environment: &[(&str, &str)]) -> Self {
        let command = command.env_clear().envs(environment.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (say, said) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { child, said }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says `wanted` on standard error; answers that line.
    #[track_caller]
    pub fn says(&self, wanted: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("never said {wanted:?}, but {before:#?}"),
            }
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        kill(name, self.id());
    }

    /// Waits for its end; whether that was an orderly one.
    pub fn ended(mut self) -> bool {
        self.child.wait().expect("a child").success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub fn kill(name: &str, id: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().expect("a shell");
    assert!(sent.success(), "{name} could not be sent to {id}");
}
