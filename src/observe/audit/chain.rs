//! Reads the audit and finds what was done to it.
//!
//! A chain without a secret shows damage and hasty hands, not somebody who may write both files and rewrites all that
//! follows: against that, keep a copy of the head hash elsewhere (`tidegate audit verify` prints it).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::row::{NONE, Row};

/// Name of the file of rows under STATE_DIR.
pub(super) const ROWS: &str = "audit.jsonl";
/// Name of the file beside it that knows the last row, so that a missing end shows.
pub(super) const HEAD: &str = "audit.head";

pub(super) const GENESIS: &str = "audit.genesis";
pub(super) const ANCHOR: &str = "audit.anchor";
pub(super) const CUT: &str = "audit.cut";

/// The last row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Its number.
    pub row: u64,
    /// Its hash.
    pub hash: String,
}

/// What whole rows come to that are all in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The last row; `None`: there is none.
    pub head: Option<Head>,
    /// Rows in the file.
    pub rows: u64,
    /// Number of the first that was kept, if older ones were cut off.
    pub cut_at: Option<u64>,
    /// Bytes of whole rows.
    pub(super) bytes: u64,
    /// Whether a row was cut off in the midst of being written.
    pub torn: bool,
    /// When the first row was written that is no anchor.
    pub(super) oldest: Option<crate::state::Timestamp>,
}

/// The audit is not what was written.
#[derive(Debug)]
pub enum Broken {
    /// A file can't be read.
    Unreadable(PathBuf, io::Error),
    /// What is wrong with which row.
    Row(u64, &'static str),
    /// Rows from this to that are missing.
    Missing(u64, u64),
    /// This row stands where that one should.
    Misplaced(u64, u64),
    /// One of the two files is missing.
    Gone(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, why) => write!(f, "{} can't be read: {why}", path.display()),
            Self::Row(row, what) => write!(f, "row {row} {what}"),
            Self::Missing(from, to) if from == to => write!(f, "row {from} is missing"),
            Self::Missing(from, to) => write!(f, "rows {from} to {to} are missing"),
            Self::Misplaced(found, wanted) => write!(f, "row {found} stands where row {wanted} should"),
            Self::Gone(name) => write!(f, "{name} is missing"),
        }
    }
}

impl std::error::Error for Broken {}

/// Reads all rows in `state_dir`, and hands each on as soon as it is known to follow the one before.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(state_dir: &Path, each: impl FnMut(Row)) -> Result<Chain, Broken> {
    let path = state_dir.join(ROWS);
    // A gate that writes meanwhile would look like one that was torn off. Where there is no file, nothing is held off.
    let _held = File::open(&path).ok().map(|file| file.lock_shared().map(|()| file)).transpose();
    read_held(state_dir, each)
}

/// As [`read`], for who holds the lock.
pub(super) fn read_held(state_dir: &Path, mut each: impl FnMut(Row)) -> Result<Chain, Broken> {
    let path = state_dir.join(ROWS);
    let unreadable = |why| Broken::Unreadable(path.clone(), why);
    let known = head(state_dir)?;
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => {
            let none = Chain { head: None, rows: 0, cut_at: None, bytes: 0, torn: false, oldest: None };
            return if known.is_none() { Ok(none) } else { Err(Broken::Gone(ROWS)) };
        }
        Err(why) => return Err(unreadable(why)),
    };
    follow(BufReader::new(file), known, &mut each).map_err(|why| match why {
        Stopped::At(why) => why,
        Stopped::By(why) => Broken::Unreadable(path.clone(), why),
    })
}

enum Stopped {
    At(Broken),
    By(io::Error),
}

impl From<Broken> for Stopped {
    fn from(why: Broken) -> Self {
        Self::At(why)
    }
}

fn follow(mut file: impl BufRead, known: Option<Head>, each: &mut impl FnMut(Row)) -> Result<Chain, Stopped> {
    let mut chain = Chain { head: None, rows: 0, cut_at: None, bytes: 0, torn: false, oldest: None };
    let (mut line, mut anchor) = (Vec::new(), None::<Head>);
    let (mut next, mut prev, mut met) = (1, NONE.to_owned(), None);
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line).map_err(Stopped::By)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            chain.torn = length > 0;
            break;
        };
        let row = Row::read(text).ok_or(Broken::Row(next, "was changed, or is no row at all"))?;
        if chain.rows == 0 && row.act == ANCHOR {
            let stands_for = row.after["hash"].as_str().unwrap_or_default().to_owned();
            (next, prev) = (row.row, row.prev.clone());
            anchor = Some(Head { row: row.row, hash: stands_for });
        } else if chain.rows == 0 && row.row == 1 && row.act != GENESIS {
            return Err(Broken::Row(1, "is not the one that a gate began with").into());
        }
        match row.row {
            found if found == next => {}
            found if found > next => return Err(Broken::Missing(next, found - 1).into()),
            found => return Err(Broken::Misplaced(found, next).into()),
        }
        if row.prev != prev {
            return Err(Broken::Row(next, "does not follow from the one before: either was replaced").into());
        }
        let cut = anchor.as_ref().is_some_and(|anchor| {
            row.act == CUT && row.after["row"] == anchor.row && row.after["hash"] == *anchor.hash
        });
        if cut {
            chain.cut_at = anchor.as_ref().map(|anchor| anchor.row + 1);
        }
        prev = match &anchor {
            Some(anchor) if chain.rows == 0 => anchor.hash.clone(),
            _ => row.hash.clone(),
        };
        let head = Head { row: next, hash: prev.clone() };
        met = met.or((known.as_ref() == Some(&head)).then_some(next));
        if known.as_ref().is_some_and(|known| known.row == next && met.is_none()) {
            return Err(Broken::Row(next, "is not the one that audit.head tells of").into());
        }
        chain.oldest = chain.oldest.or_else(|| row.at().filter(|_| row.act != ANCHOR));
        (chain.rows, chain.bytes, chain.head) = (chain.rows + 1, chain.bytes + length as u64, Some(head));
        next += 1;
        each(row);
    }
    let last = next - 1;
    match known {
        Some(known) if known.row > last => return Err(Broken::Missing(next, known.row).into()),
        // One may have been written before its head was.
        Some(known) if last > known.row + 1 => {
            return Err(Broken::Row(
                known.row + 2,
                "was added by another hand: audit.head knows nothing of it",
            )
            .into());
        }
        None if chain.rows > 1 => return Err(Broken::Gone(HEAD).into()),
        _ => {}
    }
    match anchor {
        Some(anchor) if chain.cut_at.is_none() => Err(Broken::Missing(1, anchor.row).into()),
        _ => Ok(chain),
    }
}

/// The last row as the file beside tells it.
pub(super) fn head(state_dir: &Path) -> Result<Option<Head>, Broken> {
    let path = state_dir.join(HEAD);
    match fs::read(&path) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        read => read
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
            .map(Some)
            .map_err(|why| Broken::Unreadable(path, why)),
    }
}
