//! Brings back what was counted: the tables, then what the journal has beyond them, then what was open when the process
//! ended.

use std::fs;
use std::path::Path;

use tracing::{info, warn};

use super::super::memory::MemoryStore;
use super::super::record;
use super::Log;
use super::database::{Database, Left, Mark};
use super::drain::Predecessor;
use super::error::OpenError;
use super::frame::{Found, StoreId, scan};
use super::lease::LeaseFile;
use super::segment;
use crate::state::Clock;

/// A store that was brought back.
pub(super) struct Recovered {
    pub(super) database: Database,
    pub(super) store: StoreId,
    pub(super) leases: LeaseFile,
    /// Processes that are about to end, and may still change something.
    pub(super) predecessors: Vec<Predecessor>,
    /// Bytes of the first checkpoint.
    pub(super) written: u64,
}

/// Brings everything back into `memory`, which is empty, and makes it this process's own. `boot` names the run of the
/// machine: what was written under it is whole, however the process ended.
pub(super) fn recover(
    directory: &Path,
    memory: &MemoryStore,
    log: &Log,
    clock: &Clock,
    boot: &str,
) -> Result<Recovered, OpenError> {
    let file = directory.join(Database::NAME);
    let (mut database, left) = Database::open(directory)?;
    let store = database.store()?;
    let mut exact = true;
    if let Some(left) = &left {
        database.restore(memory, clock.now())?;
        let gapless = replay(directory, left, memory, log)?;
        exact = left.clean || (!boot.is_empty() && left.boot == boot && gapless);
    }
    let mut predecessors = Predecessor::all(directory).map_err(OpenError::unusable(directory))?;
    let mut alive = Vec::new();
    for mut predecessor in predecessors.drain(..) {
        if !predecessor.follow(memory, store).map_err(OpenError::unusable(directory))? {
            alive.push(predecessor);
        }
    }
    if alive.is_empty() {
        memory.settle_inherited();
    }
    let ceilings =
        LeaseFile::read(directory).map_err(OpenError::unusable(&directory.join(LeaseFile::NAME)))?;
    if !exact {
        warn!(
            "the machine went down while the store was open: budgets have it that all was spent that may have been"
        );
        ceilings.iter().for_each(|raise| memory.spend_ceiling(raise));
    }
    ceilings.iter().for_each(|raise| memory.raised(raise));
    let leases = LeaseFile::make(directory, &memory.ceilings());
    let leases = leases.map_err(OpenError::unusable(&directory.join(LeaseFile::NAME)))?;
    let written = database
        .checkpoint(memory, log.journal.last(), Mark::Boot(boot), clock.now())
        .map_err(OpenError::of_database(&file))?;
    log.journal.begin(directory.to_owned(), store).map_err(OpenError::unusable(directory))?;
    let stats = memory.stats();
    info!(
        directory = %directory.display(),
        counters = stats.counters,
        claims = stats.claims,
        accounts = stats.accounts,
        bans = memory.all_bans().len(),
        "the store is open"
    );
    Ok(Recovered { database, store, leases, predecessors: alive, written })
}

/// Makes all changes again that the tables have not seen. False if some are missing.
fn replay(directory: &Path, left: &Left, memory: &MemoryStore, log: &Log) -> Result<bool, OpenError> {
    let mut frames: Vec<Found> = Vec::new();
    for number in segment::numbers(directory).map_err(OpenError::unusable(directory))? {
        let bytes = segment::read(directory, number).map_err(OpenError::unusable(directory))?;
        frames.extend(scan(&bytes, left.store).0.into_iter().filter(|frame| frame.last() > left.covered));
    }
    frames.sort_unstable_by_key(|frame| frame.first);
    let (mut expected, mut gapless) = (left.covered + 1, true);
    for frame in &frames {
        gapless &= frame.first <= expected;
        expected = frame.last() + 1;
        for (number, record) in frame.records().filter(|(number, _)| *number > left.covered) {
            if !record::read(record, |at, change| memory.change_again(number, at, &change)) {
                warn!(number, "a change of a kind that this version doesn't know is passed over");
            }
        }
    }
    log.journal.go_on_after(expected - 1);
    Ok(gapless)
}

/// The run of the machine; one that nobody knows counts as another each time.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
