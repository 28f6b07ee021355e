//! What accounts may spend before they have to ask again, on the disk before it is spent: a power cut, which may take back
//! whatever was not flushed, then finds at least as much spent as was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crc32fast::hash;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::super::codec::{Reader, put_u64};
use super::super::record::{Raise, put_account, put_period};
use super::journal::NotWritten;

/// Bytes of an entry: padded, so that a broken one breaks no other.
const ENTRY: usize = 64;

/// From so many bytes on, the file is written anew once most of it is of no use.
const LARGE: u64 = 1 << 20;

/// Rights that were asked for, and where they stand.
pub(super) struct Leases {
    asked: Mutex<Asked>,
    wake: Condvar,
    given: watch::Sender<Given>,
}

#[derive(Default)]
struct Asked {
    raises: Vec<Raise>,
    ticket: u64,
    closed: bool,
}

/// Up to which ticket it is decided, and the last that was refused.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    upto: u64,
    refused: u64,
}

impl Leases {
    /// Refuses all, until it is [opened](Self::open).
    pub(super) fn new() -> Self {
        let asked = Asked { closed: true, ..Asked::default() };
        Self { asked: Mutex::new(asked), wake: Condvar::new(), given: watch::Sender::default() }
    }

    /// Asks for more; answers a ticket.
    pub(super) fn ask(&self, raise: Raise) -> u64 {
        let mut asked = self.asked.lock();
        asked.ticket += 1;
        let ticket = asked.ticket;
        if asked.closed {
            drop(asked);
            self.decide(ticket, false);
        } else {
            asked.raises.push(raise);
            self.wake.notify_one();
        }
        ticket
    }

    /// Waits until what was asked for with `ticket` is on the disk.
    pub(super) async fn given(&self, ticket: u64) -> Result<(), NotWritten> {
        let mut given = self.given.subscribe();
        // The sender is in `self`.
        let given = given.wait_for(|given| given.upto >= ticket).await.map_err(|_| NotWritten)?;
        if given.refused >= ticket { Err(NotWritten) } else { Ok(()) }
    }

    /// Gives from now on, as long as somebody [serves](Self::serve).
    pub(super) fn open(&self) {
        self.asked.lock().closed = false;
    }

    /// Refuses whatever is asked from now on.
    pub(super) fn close(&self) {
        let mut asked = self.asked.lock();
        asked.closed = true;
        asked.raises.clear();
        let ticket = asked.ticket;
        drop(asked);
        self.decide(ticket, false);
        self.wake.notify_all();
    }

    fn decide(&self, upto: u64, given: bool) {
        self.given.send_modify(|state| {
            state.upto = state.upto.max(upto);
            if !given {
                state.refused = state.refused.max(upto);
            }
        });
    }

    /// Writes what is asked for until it is closed; `raised` is told what is on the disk, `failed` what could not be
    /// written, `live` answers all that still matters.
    pub(super) fn serve(
        &self,
        mut file: LeaseFile,
        raised: impl Fn(&Raise),
        failed: impl Fn(&io::Error),
        live: impl Fn() -> Vec<Raise>,
    ) {
        loop {
            let (raises, ticket) = {
                let mut asked = self.asked.lock();
                while asked.raises.is_empty() && !asked.closed {
                    self.wake.wait_for(&mut asked, Duration::from_secs(60));
                }
                if asked.closed {
                    return;
                }
                (std::mem::take(&mut asked.raises), asked.ticket)
            };
            let written = file.append(&raises);
            match &written {
                Ok(()) => raises.iter().for_each(&raised),
                Err(error) => failed(error),
            }
            self.decide(ticket, written.is_ok());
            if file.length > LARGE {
                let live = live();
                if file.length > 4 * (live.len() * ENTRY) as u64
                    && let Err(error) = file.write_anew(&live)
                {
                    failed(&error);
                }
            }
        }
    }
}

/// The file that they stand in, each as it was raised last.
pub(super) struct LeaseFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LeaseFile {
    pub(super) const NAME: &str = "ceilings";

    /// Makes the file of `raises` anew.
    pub(super) fn make(directory: &Path, raises: &[Raise]) -> io::Result<Self> {
        let path = directory.join(Self::NAME);
        let file = write(&path, raises)?;
        let length = (raises.len() * ENTRY) as u64;
        Ok(Self { path, file, length })
    }

    /// All that was given, in this order; an entry that is broken was never given.
    pub(super) fn read(directory: &Path) -> io::Result<Vec<Raise>> {
        match fs::read(directory.join(Self::NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => Ok(read?.chunks_exact(ENTRY).filter_map(parse).collect()),
        }
    }

    fn append(&mut self, raises: &[Raise]) -> io::Result<()> {
        let bytes: Vec<u8> = raises.iter().flat_map(entry).collect();
        let written = self.file.write_all(&bytes).and_then(|()| flush(&self.file, &self.path));
        match written {
            Ok(()) => self.length += bytes.len() as u64,
            // Half an entry would put all that follow out of step.
            Err(_) => self.file.set_len(self.length)?,
        }
        written
    }

    fn write_anew(&mut self, raises: &[Raise]) -> io::Result<()> {
        self.file = write(&self.path, raises)?;
        self.length = (raises.len() * ENTRY) as u64;
        Ok(())
    }
}

/// Writes a whole file aside, then gives it its name: whenever the power fails, the old one or the new one is there.
fn write(path: &Path, raises: &[Raise]) -> io::Result<File> {
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(&raises.iter().flat_map(entry).collect::<Vec<u8>>())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    flush(&file, path)?;
    Ok(file)
}

/// Returns once all that is in the file would outlive a power cut. In tests, which can't cut the power, that is what stands
/// beside it under another name.
fn flush(file: &File, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    if cfg!(test) {
        fs::copy(path, path.with_extension("flushed"))?;
    }
    Ok(())
}

fn entry(raise: &Raise) -> [u8; ENTRY] {
    let mut bytes = Vec::with_capacity(ENTRY);
    put_account(&mut bytes, raise.account);
    put_period(&mut bytes, raise.period);
    put_u64(&mut bytes, raise.max);
    put_u64(&mut bytes, raise.to);
    bytes.resize(ENTRY - 4, 0);
    let sum = hash(&bytes).to_le_bytes();
    bytes.extend(sum);
    let mut entry = [0; ENTRY];
    entry.copy_from_slice(&bytes);
    entry
}

fn parse(entry: &[u8]) -> Option<Raise> {
    let (bytes, sum) = entry.split_last_chunk::<4>()?;
    if hash(bytes).to_le_bytes() != *sum {
        return None;
    }
    let mut reader = Reader(bytes);
    Some(Raise {
        account: reader.account()?,
        period: reader.period()?,
        max: reader.u64()?,
        to: reader.u64()?,
    })
}
