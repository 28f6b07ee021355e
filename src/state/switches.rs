//! What somebody switched by hand: circuit breakers, maintenance, windows of limits. It stands until it is switched back, over a restart
//! too, if there is a directory to keep it in.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::Rate;
use crate::upstream::breaker::Mode;

/// Name of the file under STATE_DIR.
const FILE: &str = "switches.json";

/// How everything stands that can be switched by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Positions {
    /// Breakers that are not left to themselves, by the names of their upstreams.
    pub breakers: BTreeMap<String, Mode>,
    /// Set while the app is closed.
    pub maintenance: Option<Maintenance>,
    /// Windows of limits, by the names of their counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Vec<Rate>>,
}

/// The app is closed for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// What callers are told.
    pub message: String,
    /// When they are told to come back, in seconds from when they ask.
    pub retry_after_s: u32,
}

impl Positions {
    /// Who decides about a breaker.
    pub fn mode(&self, upstream: &str) -> Mode {
        self.breakers.get(upstream).copied().unwrap_or_default()
    }
}

/// The switches.
#[derive(Debug)]
pub struct Switches {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    positions: Positions,
    handed_over: bool,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum Unchanged {
    /// Another process keeps them now, or is about to.
    HandedOver,
    /// The file can't be written.
    NotKept(io::Error),
}

/// Switches that can't be read. To guess could call an upstream that somebody has cut off.
#[derive(Debug)]
pub struct UnreadableSwitches {
    file: PathBuf,
    cause: io::Error,
}

impl fmt::Display for UnreadableSwitches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tells what was switched by hand, and can't be read: {}; mend it, or remove it to leave all breakers to themselves, maintenance off and limits as the settings have them",
            self.file.display(),
            self.cause
        )
    }
}

impl std::error::Error for UnreadableSwitches {}

impl Switches {
    /// As they were left in `state_dir`; all untouched if there is none, or nothing in it.
    ///
    /// # Errors
    /// When there is a file that can't be read, or is not what was written.
    pub fn open(state_dir: Option<&Path>) -> Result<Self, UnreadableSwitches> {
        let this = Self { file: state_dir.map(|directory| directory.join(FILE)), state: Mutex::default() };
        this.read_again()?;
        Ok(this)
    }

    /// Takes over how another process has left them since.
    ///
    /// # Errors
    /// As for `open`; they stay as they are.
    pub fn read_again(&self) -> Result<(), UnreadableSwitches> {
        let Some(path) = &self.file else { return Ok(()) };
        let mut state = self.state.lock();
        state.positions = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Positions::default(),
            read => read
                .and_then(|text| Ok(serde_json::from_slice(&text)?))
                .map_err(|cause| UnreadableSwitches { file: path.clone(), cause })?,
        };
        Ok(())
    }

    /// Whether another process is to keep them: two that write would undo what the other was told.
    pub fn hand_over(&self, handed_over: bool) {
        self.state.lock().handed_over = handed_over;
    }

    /// How they stand.
    pub fn positions(&self) -> Positions {
        self.state.lock().positions.clone()
    }

    /// Whether a change outlives this process.
    pub fn kept(&self) -> bool {
        self.file.is_some()
    }

    /// Changes them: first in the file, then by `apply`, so that nothing is in force that a restart would forget.
    /// Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// See [`Unchanged`].
    pub fn change(
        &self,
        change: impl FnOnce(&mut Positions),
        apply: impl FnOnce(&Positions),
    ) -> Result<(), Unchanged> {
        let mut state = self.state.lock();
        if state.handed_over {
            return Err(Unchanged::HandedOver);
        }
        let mut wanted = state.positions.clone();
        change(&mut wanted);
        if let Some(file) = &self.file {
            write(file, &wanted).map_err(Unchanged::NotKept)?;
        }
        apply(&wanted);
        state.positions = wanted;
        Ok(())
    }
}

/// Writes a whole file aside, then gives it its name: whenever the power fails, the old one or the new one is there.
fn write(path: &Path, positions: &Positions) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    serde_json::to_writer_pretty(&mut file, positions)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tidegate-switches-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    /// A breaker that somebody opened in an incident must not close because the machine was restarted.
    #[test]
    fn positions_outlive_the_process() {
        let directory = scratch("kept").join("deeper");
        let maintenance = Maintenance { message: "Moving house.".into(), retry_after_s: 60 };
        let switches = Switches::open(Some(&directory)).expect("nothing there yet");
        let change = |positions: &mut Positions| {
            positions.breakers.insert("app".into(), Mode::Open);
            positions.maintenance = Some(maintenance.clone());
        };
        switches.change(change, |_| ()).expect("written");
        let again = Switches::open(Some(&directory)).expect("read").positions();
        assert_eq!((again.mode("app"), again.mode("other")), (Mode::Open, Mode::Auto));
        assert_eq!(again.maintenance, Some(maintenance));
        let _ = fs::remove_dir_all(scratch("kept"));
    }

    /// What can't be read must be said: to guess `auto` would call an upstream that somebody has cut off.
    #[test]
    fn a_broken_file_is_an_error_that_says_what_to_do() {
        let directory = scratch("broken");
        fs::create_dir_all(&directory).expect("a directory");
        for broken in ["", "{", r#"{"breakers":{"app":"ajar"},"maintenance":null}"#, r#"{"surprise":1}"#] {
            fs::write(directory.join(FILE), broken).expect("written");
            let error = Switches::open(Some(&directory)).expect_err(broken).to_string();
            assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
        }
        let _ = fs::remove_dir_all(&directory);
    }

    /// Two processes of which each writes what it knows would undo what an operator told the other.
    #[test]
    fn one_process_at_a_time_switches() {
        let directory = scratch("two");
        let open = |name: &str| {
            let name = name.to_owned();
            move |positions: &mut Positions| positions.breakers.extend([(name, Mode::Open)])
        };
        let [old, new] = [0, 1].map(|_| Switches::open(Some(&directory)).expect("nothing there yet"));
        old.change(open("a"), |_| ()).expect("written");
        old.hand_over(true);
        new.read_again().expect("read");
        new.change(open("b"), |_| ()).expect("written");
        let refused = old.change(open("c"), |_| panic!("in force"));
        assert!(matches!(refused, Err(Unchanged::HandedOver)), "{refused:?}");
        let kept = Switches::open(Some(&directory)).expect("read").positions();
        assert_eq!(kept.breakers.keys().collect::<Vec<_>>(), ["a", "b"]);
        old.hand_over(false);
        old.change(open("c"), |_| ()).expect("nobody came");
        let _ = fs::remove_dir_all(&directory);
    }

    /// What could not be written is not in force: the operator is told that it failed.
    #[test]
    fn a_change_that_cannot_be_kept_is_not_made() {
        let directory = scratch("readonly");
        fs::write(&directory, "a file where a directory is wanted").expect("written");
        let switches = Switches { file: Some(directory.join(FILE)), state: Mutex::default() };
        let open = |positions: &mut Positions| positions.breakers.extend([("app".into(), Mode::Open)]);
        switches.change(open, |_| panic!("in force")).expect_err("not written");
        assert_eq!(switches.positions(), Positions::default());
        let _ = fs::remove_file(&directory);
    }
}
