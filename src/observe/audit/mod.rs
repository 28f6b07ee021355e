//! The audit (O5): what operators did, in rows of which each carries the hash of the one before.
//!
//! An act is written before it is done and again when its outcome is known, so that nothing is done of which no row tells,
//! whatever fails between. A row is on the disk before the call returns. Several processes may write: for the moment in which one
//! takes over from another.

mod act;
mod chain;
mod row;
#[cfg(test)]
mod tests;

pub use act::{Act, Actor, Began, Outcome};
pub use chain::{Broken, Chain, Head, read};
pub use row::Row;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::warn;

use crate::observe::rfc3339;
use crate::state::{Clock, Timestamp};
use chain::{ANCHOR, CUT, GENESIS, HEAD, ROWS};
use row::NONE;

/// Rows of refused tokens in an hour, at most: whoever guesses must not fill the disk.
const REFUSED_TOKENS: u32 = 60;
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes the audit.
pub struct Audit {
    directory: Option<PathBuf>,
    clock: Clock,
    place: Mutex<Place>,
}

/// Where the file ends, as this process knows it.
#[derive(Default)]
struct Place {
    head: Option<Head>,
    bytes: u64,
    oldest: Option<Timestamp>,
    /// Refused tokens: since when they are counted, how many were written, and how many were not.
    tokens: (Timestamp, u32, u64),
}

/// A row that could not be written.
#[derive(Debug)]
pub enum AuditError {
    /// Somebody has changed the audit; it must be looked at before anything is added.
    Broken(Broken),
    /// The disk refuses.
    Io(PathBuf, io::Error),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(
                f,
                "the audit is broken: {why}; look at it with `tidegate audit verify`, then move {ROWS} and {HEAD} away to begin a new one"
            ),
            Self::Io(path, why) => write!(f, "the audit can't be written to {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for AuditError {}

impl Audit {
    /// The audit in `state_dir`; without one, nothing is kept.
    pub fn new(state_dir: Option<&Path>, clock: Clock) -> Self {
        Self { directory: state_dir.map(Path::to_owned), clock, place: Mutex::default() }
    }

    /// Whether rows are kept.
    pub const fn kept(&self) -> bool {
        self.directory.is_some()
    }

    /// Reads what is there, and begins if nothing is.
    ///
    /// # Errors
    /// No row could be written as it is.
    pub fn open(&self) -> Result<(), AuditError> {
        self.append(None).map(drop)
    }

    /// Writes that `act` is about to be done.
    ///
    /// # Errors
    /// It must not be done.
    pub fn begin(&self, act: &Act) -> Result<Began, AuditError> {
        Ok(Began { row: self.append(Some(act.row()))? })
    }

    /// Writes what became of `act`.
    ///
    /// # Errors
    /// That it was begun is known all the same.
    pub fn end(&self, act: &Act, began: Began, outcome: &Outcome) -> Result<(), AuditError> {
        self.append(Some(Row { of: began.row, ..outcome.row(act) })).map(drop)
    }

    /// Writes that a token was refused, unless that was written too often lately.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn token_refused(&self, by: &Actor, target: &str) -> Result<(), AuditError> {
        let now = self.clock.now();
        let untold = {
            let (since, told, untold) = &mut self.place.lock().tokens;
            if now.since(*since) >= HOUR {
                (*since, *told) = (now, 0);
            }
            if *told >= REFUSED_TOKENS {
                *untold += 1;
                return Ok(());
            }
            *told += 1;
            std::mem::take(untold)
        };
        let mut asked = json!({ "target": target });
        if untold > 0 {
            asked["more_since_the_last_row"] = untold.into();
        }
        let act = Act { by: by.clone(), act: "token_refused", subject: None, asked };
        self.append(Some(Row { outcome: "refused".into(), ..act.row() })).map(drop)
    }

    /// Cuts off rows that are older than `keep`. What is left begins with an anchor that stands for the last row cut off.
    ///
    /// # Errors
    /// The file is as it was.
    pub fn trim(&self, keep: Duration) -> Result<(), AuditError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let now = self.clock.now();
        let old = |at: Timestamp| now.since(at) > keep;
        // Not each row by itself, since each cut is a row, too.
        let due = |at: Timestamp| now.since(at) > keep + DAY.min(keep / 10);
        if !self.place.lock().oldest.is_some_and(due) {
            return Ok(());
        }
        let (mut last, mut kept, mut keeps) = (None, Vec::new(), false);
        read(directory, |row| {
            keeps = keeps || (row.act != ANCHOR && !row.at().is_some_and(old));
            if keeps {
                kept.push(row);
            } else {
                let hash = if row.act == ANCHOR {
                    row.after["hash"].as_str().unwrap_or_default().into()
                } else {
                    row.hash
                };
                last = Some(Head { row: row.row, hash });
            }
        })
        .map_err(AuditError::Broken)?;
        let Some(Head { row, hash }) = last else { return Ok(()) };
        let after = json!({ "row": row, "hash": hash });
        // First, so that nobody else can have cut.
        let cut = Row { act: CUT.into(), outcome: "done".into(), after, ..Row::default() };
        self.append(Some(cut))?;
        let path = directory.join(ROWS);
        self.rewrite(directory, &Head { row, hash }).map_err(|why| AuditError::Io(path, why))
    }

    /// Puts an anchor in the place of `last` and all before it.
    fn rewrite(&self, directory: &Path, last: &Head) -> io::Result<()> {
        let mut place = self.place.lock();
        let path = directory.join(ROWS);
        let file = locked(&path)?;
        let text = fs::read(&path)?;
        let after = json!({ "hash": last.hash });
        let mut anchor = Row {
            row: last.row,
            ts: rfc3339(self.clock.now()),
            act: ANCHOR.into(),
            outcome: "done".into(),
            after,
            prev: NONE.into(),
            ..Row::default()
        };
        let mut new = anchor.line()?.into_bytes();
        let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let later = |line: &&[u8]| Row::read(line.trim_ascii_end()).is_some_and(|row| row.row > last.row);
        lines.filter(later).for_each(|line| new.extend_from_slice(line));
        replace(&path, &new)?;
        // The next row is written to the new file, of which everything is read first.
        *place = Place { tokens: place.tokens, ..Place::default() };
        drop(file);
        Ok(())
    }

    /// Appends a row, whose number, time and hashes are filled in; answers its number, if it is kept.
    fn append(&self, row: Option<Row>) -> Result<Option<u64>, AuditError> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let mut place = self.place.lock();
        let written = self.append_to(directory, &mut place, row);
        if written.is_err() {
            // What is there now is read anew before the next.
            place.head = None;
        }
        written.map(Some)
    }

    fn append_to(&self, directory: &Path, place: &mut Place, row: Option<Row>) -> Result<u64, AuditError> {
        let path = directory.join(ROWS);
        let io = |why| AuditError::Io(path.clone(), why);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let mut file = locked(&path).map_err(io)?;
        let found = chain::head(directory).map_err(AuditError::Broken)?;
        let known = place.head.is_some() && place.head == found;
        if !known || file.metadata().map_err(io)?.len() != place.bytes {
            let chain = chain::read_held(directory, |_| ()).map_err(AuditError::Broken)?;
            if chain.torn {
                warn!("the last row of the audit was torn off while it was written; nothing was done of it");
                file.set_len(chain.bytes).map_err(io)?;
            }
            (place.head, place.bytes, place.oldest) = (chain.head, chain.bytes, chain.oldest);
            if place.head.is_none() {
                let mut nonce = [0u8; 32];
                rand::fill(&mut nonce).map_err(|_| io(io::Error::other("the system has no randomness")))?;
                let after = json!({ "nonce": row::hex(&nonce) });
                let genesis = Row { act: GENESIS.into(), outcome: "done".into(), after, ..Row::default() };
                self.write(&mut file, place, genesis).map_err(io)?;
            }
            write_head(directory, place.head.as_ref()).map_err(io)?;
        }
        if let Some(row) = row {
            self.write(&mut file, place, row).map_err(io)?;
            write_head(directory, place.head.as_ref()).map_err(io)?;
        }
        Ok(place.head.as_ref().map_or(0, |head| head.row))
    }

    fn write(&self, file: &mut File, place: &mut Place, row: Row) -> io::Result<()> {
        let now = self.clock.now();
        let (number, prev) = match &place.head {
            Some(Head { row, hash }) => (row + 1, hash.clone()),
            None => (1, NONE.to_owned()),
        };
        let mut row = Row { row: number, ts: rfc3339(now), prev, ..row };
        let line = row.line()?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        place.bytes += line.len() as u64;
        place.oldest = place.oldest.or(Some(now));
        place.head = Some(Head { row: number, hash: row.hash });
        Ok(())
    }
}

/// Opens the file of rows for appending, and holds off all others. Another process may have put a new one in its place meanwhile.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.lock()?;
        let same =
            fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
        if same {
            return Ok(file);
        }
    }
}

fn write_head(directory: &Path, head: Option<&Head>) -> io::Result<()> {
    replace(&directory.join(HEAD), format!("{}\n", serde_json::to_string(&head)?).as_bytes())
}

/// Writes a whole file aside, then gives it its name.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A text that an operator wrote, fit to be kept.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => act::clean_text(&text).into(),
        Value::Array(items) => items.into_iter().map(clean).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, clean(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}
