//! `kill -9`, and power cuts.

use std::os::unix::fs::MetadataExt;

use smallvec::smallvec;

use super::super::lease::LeaseFile;
use super::super::segment::{self, SEGMENT};
use super::*;

/// Nobody may get back by a crash what was taken, nor lose what was free.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_forgets_nothing_that_was_persisted() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (ai, api) = (limit("ai", &[(MINUTE, 5), (HOUR, 8)]), limit("api", &[(HOUR, 1000)]));
    let daily = budget("daily", 1000);
    let store = open(&scratch.0, &hand);
    for round in 0..4 {
        assert!(draw(&store, &ai, user(1)).await && draw(&store, &api, user(2)).await, "{round}");
        hand.advance(Duration::from_secs(1));
    }
    assert!(take(&store, 1, 7).await.is_granted() && take(&store, 2, 8).await.is_granted());
    assert!(hold(&store, 3, &daily, 100).await.unwrap().is_granted());
    assert!(hold(&store, 4, &daily, 10).await.unwrap().is_granted());
    store.settle(&[settlement(1, Outcome::Served), settlement(4, Outcome::NeverSent)]).await.unwrap();
    let placed = ban(9, hand.clock().now());
    store.ban(placed.clone()).await.unwrap();
    store.ban(ban(10, hand.clock().now())).await.unwrap();
    store.lift(user(10)).await.unwrap();
    store.persist().await.unwrap();
    store.kill();

    let store = open(&scratch.0, &hand);
    assert_eq!((remaining(&store, &ai, user(1)).await, remaining(&store, &api, user(2)).await), (1, 996));
    assert_eq!(*store.bans().all(), [Arc::new(placed)]);
    hand.advance(MINUTE - Duration::from_secs(4));
    assert_eq!(remaining(&store, &ai, user(1)).await, 2, "each draw leaves when it would have");
    let Decision::Denied(Denial::Claimed { by, .. }) = take(&store, 5, 7).await else {
        panic!("served before")
    };
    assert!(!by.under_way && by.same_content);
    assert!(take(&store, 6, 8).await.is_granted(), "its request ended with the process");
    assert_eq!(stands(&store, &daily, user(1)).await, (100, 0), "nobody knows what the open call cost");
    // The settlements of what is gone change nothing.
    store.settle(&[settlement(3, Outcome::Served), settlement(2, Outcome::Served)]).await.unwrap();
    assert_eq!(stands(&store, &daily, user(1)).await, (100, 0));
}

/// What nobody was told may be lost, and nothing else with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_persisted_is_lost_alone() {
    let (scratch, hand) = (Scratch::new(), hand());
    let ai = limit("ai", &[(HOUR, 100)]);
    let store = open(&scratch.0, &hand);
    // Its thread would write what is to be lost.
    store.stop(End::Now);
    for _ in 0..10 {
        assert!(draw(&store, &ai, user(1)).await);
    }
    store.persist().await.unwrap();
    assert!(draw(&store, &ai, user(1)).await);
    store.kill();
    assert_eq!(remaining(&open(&scratch.0, &hand), &ai, user(1)).await, 90);
}

/// Bytes that the journal has written.
async fn persisted(store: &EmbeddedStore) -> usize {
    store.persist().await.unwrap();
    store.inner.log.journal.counts().0 as usize
}

/// The file of the journal with something at `at`.
fn written(directory: &Path, at: usize) -> PathBuf {
    let numbers = segment::numbers(directory).unwrap();
    let found = numbers.into_iter().find(|n| segment::read(directory, *n).unwrap()[at..at + 4] != [0; 4]);
    directory.join(format!("journal-{}", found.expect("something was written")))
}

/// A crash in the middle of a write, at whatever byte, must cost what was being written and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_cut_off_at_every_byte() {
    let (scratch, hand) = (Scratch::new(), hand());
    let ai = limit("ai", &[(HOUR, 100)]);
    let store = open(&scratch.0, &hand);
    store.stop(End::Now);
    for _ in 0..5 {
        assert!(draw(&store, &ai, user(1)).await);
    }
    let before = persisted(&store).await;
    assert!(draw(&store, &ai, user(1)).await);
    let after = persisted(&store).await;
    store.kill();
    let saved = Scratch::new();
    copy(&scratch.0, &saved.0);
    for cut in before..=after {
        for filling in [0u8, 0xa5] {
            copy(&saved.0, &scratch.0);
            let path = written(&scratch.0, 0);
            let mut bytes = fs::read(&path).unwrap();
            let whole = bytes.clone();
            bytes[cut..after].fill(filling);
            let expected = if bytes == whole { 94 } else { 95 };
            fs::write(&path, bytes).unwrap();
            let store = open(&scratch.0, &hand);
            assert_eq!(remaining(&store, &ai, user(1)).await, expected, "cut at {cut} of {before}..{after}");
            store.kill();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Whatever a checkpoint has already must not be counted again from the journal, whenever the process is killed around it.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_journal_count_each_change_once() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (api, daily) = (limit("api", &[(HOUR, 1_000_000)]), budget("daily", 1_000_000));
    let mut drawn = [0u64; 50];
    let (mut spent, mut id) = (0, 0u128);
    for life in 0..6 {
        let store = open(&scratch.0, &hand);
        for round in 0u64.. {
            for (at, drawn) in drawn.iter_mut().enumerate() {
                assert!(draw(&store, &api, user(at as u128)).await);
                *drawn += 1;
            }
            id += 1;
            assert!(hold(&store, id, &daily, 3).await.unwrap().is_granted());
            let known = Settlement { spent: Some(smallvec![2]), ..settlement(id, Outcome::Served) };
            store.settle(&[known]).await.unwrap();
            spent += 2;
            store.persist().await.unwrap();
            // Some lives end within a file, some behind several.
            if (life % 2 == 0 && round == 40) || store.checkpointed() >= 2 {
                break;
            }
        }
        store.kill();
        let store = open(&scratch.0, &hand);
        for (at, drawn) in drawn.iter().enumerate() {
            assert_eq!(remaining(&store, &api, user(at as u128)).await, 1_000_000 - drawn, "life {life}");
        }
        assert_eq!(stands(&store, &daily, user(1)).await, (spent, 0));
        drop(store);
    }
}

/// The journal must not grow for ever, nor a crowd that has passed stay on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_given_back() {
    let (scratch, hand) = (Scratch::new(), hand());
    let api = limit("api", &[(MINUTE, 10)]);
    let store = open(&scratch.0, &hand);
    for id in 0..100_000 {
        assert!(draw(&store, &api, user(id << 64 | id)).await);
        store.persist().await.unwrap();
    }
    let size = || fs::metadata(scratch.0.join("tidegate.db")).unwrap().size();
    store.close();
    let (full, files) = (size(), segment::numbers(&scratch.0).unwrap().len());
    assert!(files <= 8, "{files} files of {SEGMENT} bytes");
    let store = open(&scratch.0, &hand);
    assert!(segment::numbers(&scratch.0).unwrap().len() <= 2);
    assert_eq!(remaining(&store, &api, user(5 << 64 | 5)).await, 9);
    hand.advance(MINUTE);
    store.sweep();
    drop(store);
    assert!(size() < full / 4, "{} of {full} bytes are left", size());
}

/// What is not flushed is gone: the journal wholly, of the ceilings all that came after the last flush.
fn cut_the_power(directory: &Path) {
    for number in segment::numbers(directory).unwrap() {
        fs::write(directory.join(format!("journal-{number}")), vec![0; SEGMENT as usize]).unwrap();
    }
    let ceilings = directory.join(LeaseFile::NAME);
    let flushed = fs::read(ceilings.with_extension("flushed")).unwrap_or_default();
    fs::write(ceilings, flushed).unwrap();
}

/// Money that was spent before a power cut could be spent again after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_never_makes_money_come_back() {
    for calls in [1, 2, 7, 40, 99] {
        let (scratch, hand) = (Scratch::new(), hand());
        let (daily, ai) = (budget("daily", 10_000), limit("ai", &[(HOUR, 1000)]));
        let boots = |boot: &str| {
            let store = EmbeddedStore::new(config(&scratch.0), hand.clock());
            store.open_under(boot, Duration::ZERO).unwrap();
            store
        };
        let store = boots("first");
        let mut counted = 0;
        for id in 0..calls {
            assert!(hold(&store, id, &daily, 100).await.unwrap().is_granted());
            assert!(draw(&store, &ai, user(1)).await);
            if id % 3 > 0 {
                let spent = Some(smallvec![60]);
                store.settle(&[Settlement { spent, ..settlement(id, Outcome::Served) }]).await.unwrap();
                counted += 60;
            } else {
                counted += 100;
            }
            store.persist().await.unwrap();
        }
        store.kill();
        cut_the_power(&scratch.0);
        let store = boots("second");
        let (spent, held) = stands(&store, &daily, user(1)).await;
        assert!(spent >= counted && held == 0, "{calls} calls cost {counted}, and {spent} is known");
        // A lease is four calls.
        assert!(spent <= counted + 500, "{calls} calls cost {counted}: {spent} is too much");
        store.kill();
        let store = boots("second");
        assert_eq!(stands(&store, &daily, user(1)).await, (spent, 0), "a kill is no power cut");
        drop(store);
        let store = boots("third");
        assert_eq!(stands(&store, &daily, user(1)).await, (spent, 0), "nor is an orderly end");
    }
}

/// A page that rotted must not be taken for what was counted, and what follows it must not be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_record_costs_itself_and_makes_money_count_as_spent() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (daily, ai) = (budget("daily", 10_000), limit("ai", &[(HOUR, 1000)]));
    let store = open(&scratch.0, &hand);
    store.stop(End::Now);
    // Its threads are gone, so that the first hold is asked for here.
    assert!(draw(&store, &ai, user(1)).await);
    let first = persisted(&store).await;
    assert!(draw(&store, &ai, user(1)).await);
    let second = persisted(&store).await;
    assert!(draw(&store, &ai, user(1)).await);
    persisted(&store).await;
    let raise = Raise {
        account: (daily.counter(), user(1)),
        period: daily.period(hand.clock().now()),
        max: 10_000,
        to: 400,
    };
    LeaseFile::make(&scratch.0, &[raise]).unwrap();
    store.kill();
    let path = written(&scratch.0, 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::midpoint(first, second)] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = open(&scratch.0, &hand);
    assert_eq!(remaining(&store, &ai, user(1)).await, 998, "one of three is lost");
    assert_eq!(stands(&store, &daily, user(1)).await, (400, 0), "who knows what it was");
}
