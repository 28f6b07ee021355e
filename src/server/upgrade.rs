//! Takes over from a running process, or hands over to the next one: listening sockets go over a Unix socket in a
//! directory of their own, and no connection is refused in between.
//!
//! Pingora's own way would stop serving even if nobody came for the sockets; so only its transfer is used.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora::server::Fds;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::StartError;
use super::sockets::Bound;
use crate::state::switches::Switches;

/// Bytes that the path of a Unix socket can have (unix(7)).
const PATH_BYTES: usize = 107;

/// How long the next process may take to pick the sockets up once they were sent: it looks once a second.
const PICKED_UP: Duration = Duration::from_secs(8);

/// Where this process can be found by the next one: its id in a file, and the place where sockets change hands.
pub(super) struct Succession {
    directory: PathBuf,
    sockets: Fds,
    switches: Arc<Switches>,
}

impl Succession {
    /// Tells the process's id in `directory`, and offers these sockets to whoever comes next.
    pub(super) fn announce(
        directory: &Path,
        sockets: &[&Bound],
        switches: &Arc<Switches>,
    ) -> Result<Self, StartError> {
        let mut fds = Fds::new();
        sockets.iter().for_each(|bound| fds.add(bound.address.to_string(), bound.fd()));
        let this = Self { directory: directory.to_owned(), sockets: fds, switches: switches.clone() };
        let written = private(directory)
            .and_then(|()| fs::write(this.process_file(), format!("{}\n", std::process::id())));
        written.map_err(|why| unusable(&this.process_file(), &why))?;
        Ok(this)
    }

    fn process_file(&self) -> PathBuf {
        self.directory.join("tidegate.pid")
    }

    /// Hands the sockets to the process that waits for them. This one goes on accepting until they were picked up. What is
    /// switched by hand is the next one's matter from the start, since it reads what is kept as soon as it has them.
    ///
    /// # Errors
    /// Nobody came for them; this process is to serve on.
    pub(super) async fn hand_over(self: Arc<Self>) -> Result<(), String> {
        self.switches.hand_over(true);
        let handed_over = self.clone().try_hand_over().await;
        if handed_over.is_err() {
            self.switches.hand_over(false);
        }
        handed_over
    }

    async fn try_hand_over(self: Arc<Self>) -> Result<(), String> {
        // Pingora tries for some seconds, and blocks meanwhile.
        let sent = spawn_blocking(move || self.send()).await;
        let place = sent.map_err(|_| "sending the sockets panicked".to_owned())??;
        // The taker removes the place when it has them.
        let picked_up = async {
            while fs::exists(&place).unwrap_or(false) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let late = |_| format!("the sockets sent to {place} were not picked up");
        timeout(PICKED_UP, picked_up).await.map_err(late)
    }

    fn send(&self) -> Result<String, String> {
        let place = place(&self.directory).map_err(|why| why.to_string())?;
        self.sockets.send_to_sock(&*place).map_err(|why| {
            format!("nobody waits for the sockets at {place}: {why}; start `tidegate run --upgrade` first")
        })?;
        Ok(place)
    }
}

impl Drop for Succession {
    fn drop(&mut self) {
        // Only if no other process took over.
        let own = fs::read_to_string(self.process_file())
            .is_ok_and(|id| id.trim() == std::process::id().to_string());
        if own && let Err(why) = fs::remove_file(self.process_file()) {
            warn!(%why, "the file with the process's id stays behind");
        }
    }
}

/// Waits for the sockets of the process before; some seconds at most.
pub(super) fn take_over(directory: &Path) -> Result<Fds, StartError> {
    let place = place(directory)?;
    let mut fds = Fds::new();
    fds.get_from_sock(&*place).map_err(|why| {
        StartError::Setup(format!(
            "no process handed its sockets over at {place}: {why}; send SIGQUIT to the one that runs"
        ))
    })?;
    Ok(fds)
}

/// The socket over which sockets go. Pingora lets everyone write to it, so it has a directory that nobody else enters.
fn place(directory: &Path) -> Result<String, StartError> {
    let own = directory.join("upgrade");
    let made = private(&own).and_then(|()| fs::metadata(&own));
    let mode = made.map_err(|why| unusable(&own, &why))?.permissions().mode();
    if mode & 0o077 != 0 {
        let own = own.display();
        return Err(StartError::Setup(format!("others can enter {own}; chmod 700 {own}")));
    }
    let place = own.join("sockets").display().to_string();
    if place.len() > PATH_BYTES {
        return Err(StartError::Setup(format!(
            "{place} is too long for a socket; set runtime_dir to a shorter path"
        )));
    }
    Ok(place)
}

/// Makes a directory that only its owner can enter, if it is missing.
pub(super) fn private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn unusable(path: &Path, why: &io::Error) -> StartError {
    StartError::Setup(format!(
        "{} can't be used: {why}; set runtime_dir or state_dir to another place",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever can write to the place can have the next process accept on sockets of theirs.
    #[test]
    fn nobody_else_enters_where_sockets_change_hands() {
        let directory = std::env::temp_dir().join(format!("tidegate-upgrade-{}", std::process::id()));
        let made = place(&directory).expect("a place");
        let own = directory.join("upgrade");
        let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&own)), (0o700, 0o700));
        assert!(made.starts_with(&*own.display().to_string()));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o711)).expect("the owner may");
        let refused = place(&directory).map_err(|why| why.to_string()).expect_err("others can enter");
        assert!(refused.contains("chmod 700"), "{refused}");
        let long = place(&directory.join("x".repeat(PATH_BYTES))).map_err(|why| why.to_string());
        assert!(long.expect_err("too long").contains("runtime_dir"));
        fs::remove_dir_all(&directory).expect("clean up");
    }
}
