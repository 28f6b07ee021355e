//! The database: what the journal has told, brought together in checkpoints. Only ever written by one thread, never on the
//! way of a request.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use bytes::Bytes;
use crc32fast::hash;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::Subject;
use super::super::bans::Ban;
use super::super::claim::{ClaimKey, KeptAnswer};
use super::super::clock::Timestamp;
use super::super::codec::{Reader, put_bytes, put_subject};
use super::super::memory::{Answered, MemoryStore, Table};
use super::error::OpenError;
use super::frame::StoreId;

/// Version of the tables.
const VERSION: i64 = 1;

/// `application_id` of the file: "TGst".
const APPLICATION: i64 = 0x5447_7374;

/// Numbers between the pieces of two tables.
const TABLE: usize = 1000;

/// Free pages that are worth giving back to the disk, and how many at once.
const VACUUM: (i64, i64) = (256, 4096);

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    -- counters, claims and accounts, by the thousand; each begins with the CRC-32 of its rest
    CREATE TABLE pieces (id INTEGER PRIMARY KEY, rows BLOB NOT NULL) STRICT;
    CREATE TABLE bans (
        subject BLOB PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL,
        remembered_until INTEGER NOT NULL, level INTEGER NOT NULL, by_hand INTEGER NOT NULL, reason TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE answers (
        claim BLOB PRIMARY KEY, claimed INTEGER NOT NULL, until INTEGER NOT NULL, status INTEGER NOT NULL,
        headers BLOB NOT NULL, body BLOB NOT NULL
    ) STRICT;
";

/// The database of a store.
pub(super) struct Database {
    connection: Connection,
    file: PathBuf,
    /// Nothing of the pieces in it counts: the next checkpoint writes all.
    stale: bool,
    /// A checkpoint failed, and with it what it was told of answers.
    failed: bool,
    buffer: Vec<u8>,
}

/// How a process left the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Tells the store's frames from those of others.
    pub(super) store: StoreId,
    /// The number of the last change that all rows have seen.
    pub(super) covered: u64,
    /// The boot under which it ran.
    pub(super) boot: String,
    /// Whether it closed the store.
    pub(super) clean: bool,
}

impl Database {
    pub(super) const NAME: &str = "tidegate.db";

    /// Opens the database in `directory`; makes it if there is none. `None`: it is new.
    pub(super) fn open(directory: &Path) -> Result<(Self, Option<Left>), OpenError> {
        let file = directory.join(Self::NAME);
        // SQLite would make it readable by everyone; its other files take their mode from this one.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file);
        made.map_err(OpenError::unusable(&file))?;
        writable(&file).map_err(OpenError::unusable(&file))?;
        let connection = Connection::open(&file).map_err(OpenError::of_database(&file))?;
        let mut database = Self { connection, file, stale: true, failed: false, buffer: Vec::new() };
        let left = database.begin()?;
        Ok((database, left))
    }

    fn begin(&mut self) -> Result<Option<Left>, OpenError> {
        let file = self.file.clone();
        let told = || OpenError::of_database(&file);
        let connection = &mut self.connection;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(told())?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (version, application) =
            (number("user_version").map_err(told())?, number("application_id").map_err(told())?);
        let tables = number("schema_version").map_err(told())?;
        if tables > 0 && application != APPLICATION {
            return Err(OpenError::Damaged { file, what: "it is another program's database".into() });
        }
        if version > VERSION {
            return Err(OpenError::Newer { file, version });
        }
        if tables == 0 {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(told())?;
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(told())?;
        // Files of the journal are written over once a checkpoint has what is in them: it has to be on the disk.
        connection.pragma_update(None, "synchronous", "FULL").map_err(told())?;
        connection.pragma_update(None, "journal_size_limit", 1 << 20).map_err(told())?;
        if tables == 0 {
            let mut random = [0; 8];
            rand::fill(&mut random).map_err(|_| OpenError::Unusable {
                path: file.clone(),
                cause: io::Error::other("the system has no randomness"),
            })?;
            let transaction = connection.transaction().map_err(told())?;
            transaction.execute_batch(TABLES).map_err(told())?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(told())?;
            transaction.pragma_update(None, "application_id", APPLICATION).map_err(told())?;
            set(&transaction, "store", i64::from_le_bytes(random)).map_err(told())?;
            set(&transaction, "covered", 0).map_err(told())?;
            transaction.commit().map_err(told())?;
            return Ok(None);
        }
        let get = |key| get::<i64>(connection, key);
        let left = Left {
            store: get("store").map_err(told())?.unwrap_or_default() as u64,
            covered: get("covered").map_err(told())?.unwrap_or_default() as u64,
            boot: get_text(connection).map_err(told())?.unwrap_or_default(),
            clean: get("clean").map_err(told())? == Some(1),
        };
        if !left.clean {
            let sound = connection.pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0));
            match sound.map_err(told())? {
                sound if sound == "ok" => {}
                what => return Err(OpenError::Damaged { file, what }),
            }
        }
        Ok(Some(left))
    }

    /// Tells the store's id, by which it knows its frames.
    pub(super) fn store(&self) -> Result<StoreId, OpenError> {
        let id = get::<i64>(&self.connection, "store").map_err(OpenError::of_database(&self.file))?;
        Ok(id.unwrap_or_default() as u64)
    }

    /// Takes all back into `memory`.
    pub(super) fn restore(&self, memory: &MemoryStore, now: Timestamp) -> Result<(), OpenError> {
        let told = || OpenError::of_database(&self.file);
        let damaged = |what: &str| OpenError::Damaged {
            file: self.file.clone(),
            what: format!("{what} can't be read"),
        };
        let mut pieces = self.connection.prepare("SELECT id, rows FROM pieces ORDER BY id").map_err(told())?;
        let mut found = pieces.query([]).map_err(told())?;
        while let Some(row) = found.next().map_err(told())? {
            let id: i64 = row.get(0).map_err(told())?;
            let bytes = row.get_ref(1).map_err(told())?.as_blob().map_err(|_| damaged("a piece"))?;
            let table = Table::ALL.get(id as usize / TABLE).ok_or_else(|| damaged("a piece"))?;
            let sound =
                bytes.split_first_chunk::<4>().filter(|(sum, rows)| hash(rows).to_le_bytes() == **sum);
            let restored = sound.is_some_and(|(_, rows)| memory.restore(*table, rows));
            if !restored {
                return Err(damaged("a piece"));
            }
        }
        memory.restored();
        let mut bans = self.connection.prepare("SELECT * FROM bans").map_err(told())?;
        let mut found = bans.query([]).map_err(told())?;
        while let Some(row) = found.next().map_err(told())? {
            let ban = ban(row).map_err(told())?.ok_or_else(|| damaged("a ban"))?;
            memory.restore_ban(ban);
        }
        let mut answers = self
            .connection
            .prepare(
                "SELECT claim, claimed, status, headers, body FROM answers WHERE until > ?1 ORDER BY claimed",
            )
            .map_err(told())?;
        let mut found = answers.query([time(now.as_micros())]).map_err(told())?;
        while let Some(row) = found.next().map_err(told())? {
            let (key, at, answer) = answer(row).map_err(told())?.ok_or_else(|| damaged("an answer"))?;
            memory.restore_answer(key, at, answer);
        }
        Ok(())
    }

    /// Writes all that has changed in `memory`, which then is on the disk. `covered` is the number of a change that all
    /// before it were made before this was called. Answers the bytes of what was written.
    pub(super) fn checkpoint(
        &mut self,
        memory: &MemoryStore,
        covered: u64,
        mark: Mark<'_>,
        now: Timestamp,
    ) -> rusqlite::Result<u64> {
        let all = std::mem::replace(&mut self.stale, true);
        let failed = std::mem::replace(&mut self.failed, true);
        let mut bytes = 0;
        let transaction = self.connection.transaction()?;
        if all {
            transaction.execute_batch("DELETE FROM pieces; DELETE FROM bans;")?;
        }
        {
            let mut put = transaction.prepare("INSERT OR REPLACE INTO pieces (id, rows) VALUES (?1, ?2)")?;
            for (at, table) in Table::ALL.into_iter().enumerate() {
                for piece in 0..table.pieces() {
                    let buffer = &mut self.buffer;
                    buffer.clear();
                    buffer.extend([0; 4]);
                    if !memory.cut(table, piece, all, buffer) {
                        continue;
                    }
                    let sum = hash(buffer.get(4..).unwrap_or_default()).to_le_bytes();
                    buffer[..4].copy_from_slice(&sum);
                    bytes += buffer.len() as u64;
                    put.execute(params![(at * TABLE + piece) as i64, &*buffer])?;
                }
            }
        }
        let changed = memory.cut_bans();
        let bans = match all {
            true => memory.all_bans().into_iter().map(|ban| (ban.subject, Some(ban))).collect(),
            false => changed,
        };
        for (subject, ban) in bans {
            put_ban(&transaction, subject, ban.as_deref())?;
        }
        for piece in 0..Table::Claims.pieces() {
            for answered in memory.answered(piece, failed) {
                bytes += put_answer(&transaction, answered)?;
            }
        }
        let past = time(now.as_micros());
        transaction.execute("DELETE FROM answers WHERE until <= ?1", [past])?;
        transaction.execute("DELETE FROM bans WHERE remembered_until <= ?1", [past])?;
        set(&transaction, "covered", time(covered))?;
        set(&transaction, "clean", i64::from(mark == Mark::Clean))?;
        if let Mark::Boot(boot) = mark {
            set(&transaction, "boot", boot)?;
        }
        transaction.commit()?;
        (self.stale, self.failed) = (false, false);
        self.buffer.shrink_to(1 << 20);
        if let Err(why) = self.give_back() {
            tracing::warn!(%why, "the database keeps pages that are free");
        }
        Ok(bytes)
    }

    /// Gives pages that are free back to the disk.
    fn give_back(&self) -> rusqlite::Result<()> {
        let number = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let free = number("freelist_count")?;
        if free > VACUUM.0 && free * 2 > number("page_count")? {
            let pages = free.min(VACUUM.1);
            let sql = format!("PRAGMA incremental_vacuum({pages})");
            let mut vacuum = self.connection.prepare(&sql)?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        Ok(())
    }

    /// The next checkpoint writes all, whatever has changed.
    pub(super) fn distrust(&mut self) {
        self.stale = true;
    }
}

/// What a checkpoint tells of the process that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// It begins, under this boot.
    Boot(&'a str),
    /// It goes on.
    Running,
    /// It closes the store.
    Clean,
}

/// Fails if the file can't be written: SQLite would take it for read-only, and tell so only at the first change.
fn writable(file: &Path) -> io::Result<()> {
    if fs::metadata(file)?.permissions().mode() & 0o200 == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    OpenOptions::new().write(true).open(file).map(drop)
}

/// SQLite has no unsigned numbers; the end of time may come a little earlier.
fn time(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

fn set(transaction: &Transaction<'_>, key: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    transaction.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, value]).map(drop)
}

fn get<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn get_text(connection: &Connection) -> rusqlite::Result<Option<String>> {
    get(connection, "boot")
}

fn put_ban(transaction: &Transaction<'_>, subject: Subject, ban: Option<&Ban>) -> rusqlite::Result<()> {
    let mut key = Vec::new();
    put_subject(&mut key, subject);
    let Some(ban) = ban else {
        return transaction.execute("DELETE FROM bans WHERE subject = ?1", [key]).map(drop);
    };
    let [since, until, remembered] =
        [ban.since, ban.until, ban.remembered_until].map(|at| time(at.as_micros()));
    transaction
        .execute(
            "INSERT OR REPLACE INTO bans VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![key, since, until, remembered, ban.level, ban.by_hand, ban.reason],
        )
        .map(drop)
}

fn ban(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Ban>> {
    let at = |column| Ok::<_, rusqlite::Error>(Timestamp::from_micros(row.get::<_, i64>(column)? as u64));
    let subject: Vec<u8> = row.get(0)?;
    let Some(subject) = Reader(&subject).subject() else { return Ok(None) };
    Ok(Some(Ban {
        subject,
        since: at(1)?,
        until: at(2)?,
        remembered_until: at(3)?,
        level: row.get(4)?,
        by_hand: row.get(5)?,
        reason: row.get(6)?,
    }))
}

fn put_answer(transaction: &Transaction<'_>, answered: Answered) -> rusqlite::Result<u64> {
    let key = answered.key.0.to_le_bytes();
    let Some((answer, claimed, until)) = answered.answer else {
        transaction.execute("DELETE FROM answers WHERE claim = ?1", [key])?;
        return Ok(0);
    };
    let mut headers = Vec::new();
    for (name, value) in &answer.headers {
        put_bytes(&mut headers, name.as_bytes());
        put_bytes(&mut headers, value);
    }
    transaction.execute(
        "INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![key, time(claimed), time(until), answer.status, headers, &*answer.body],
    )?;
    Ok(answer.size() as u64)
}

fn answer(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<(ClaimKey, u64, KeptAnswer)>> {
    let (key, claimed): ([u8; 16], i64) = (row.get(0)?, row.get(1)?);
    let (status, written, body): (u16, Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let (mut reader, mut headers) = (Reader(&written), Vec::new());
    while !reader.is_empty() {
        let (Some(name), Some(value)) = (reader.bytes(), reader.bytes()) else { return Ok(None) };
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        headers.push((name.into(), value.into()));
    }
    let answer = KeptAnswer { status, headers, body: Bytes::from(body) };
    Ok(Some((ClaimKey(u128::from_le_bytes(key)), claimed as u64, answer)))
}
