//! Files that can't be used, and disks that fail.

use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;
use rusqlite::Connection;

use super::*;

fn error(directory: &Path) -> String {
    try_open(directory, hand().clock()).err().expect("an error").to_string()
}

/// An operator who finds the gate down has to read what to do, not what SQLite calls it.
#[test]
fn what_is_wrong_at_start_is_told_with_the_file_and_the_remedy() {
    let scratch = Scratch::new();
    let has = |text: &str, wanted: &[&str]| {
        wanted.iter().for_each(|wanted| assert!(text.contains(wanted), "no {wanted}: {text}"));
    };
    let store = open(&scratch.0, &hand());
    draw(&store, &limit("ai", &[(HOUR, 5)]), user(1)).now_or_never().expect("at once");
    has(&error(&scratch.0), &["another process", &std::process::id().to_string(), "state_dir"]);
    drop(store);
    let database = scratch.0.join("tidegate.db");
    let whole = fs::read(&database).unwrap();

    fs::write(
        &database,
        "no database, and longer than the header of one, so that it is read as one. ".repeat(9),
    )
    .unwrap();
    has(&error(&scratch.0), &["tidegate.db", "damaged", "move it away"]);

    let mut broken = whole.clone();
    let half = broken.len() / 2;
    broken[half..].fill(0xee);
    fs::write(&database, &broken).unwrap();
    has(&error(&scratch.0), &["tidegate.db", "damaged", "move it away"]);

    fs::write(&database, &whole).unwrap();
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
    has(&error(&scratch.0), &["tidegate.db", "later tidegate", "99"]);

    fs::write(&database, &whole).unwrap();
    fs::set_permissions(&database, PermissionsExt::from_mode(0o400)).unwrap();
    has(&error(&scratch.0), &["tidegate.db", "0700", "state_dir"]);
    fs::set_permissions(&database, PermissionsExt::from_mode(0o600)).unwrap();
    open(&scratch.0, &hand());

    let foreign = Scratch::new();
    fs::create_dir_all(&foreign.0).unwrap();
    Connection::open(foreign.0.join("tidegate.db")).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    has(&error(&foreign.0), &["another program's"]);

    let file = Scratch::new();
    fs::write(&file.0, "a file where a directory is wanted").unwrap();
    has(&error(&file.0), &[&file.0.display().to_string(), "state_dir"]);
    let implied = EmbeddedStore::new(EmbeddedConfig { implied: true, ..config(&file.0) }, hand().clock());
    assert!(implied.open(Duration::ZERO).unwrap().is_some(), "nobody asked for this place");
    fs::remove_file(&file.0).unwrap();
}

/// What others may read on the machine is who asked, and what answers they got.
#[test]
fn nobody_else_can_read_it() {
    let scratch = Scratch::new();
    let store = open(&scratch.0, &hand());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    for entry in fs::read_dir(&scratch.0).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(store);
}

/// A full disk must neither stop the app nor let money be spent that a crash would forget; and when it has room again,
/// all that was counted meanwhile must be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_closes_budgets_and_heals() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (ai, daily) = (limit("ai", &[(HOUR, 100)]), budget("daily", 1000));
    let store = open(&scratch.0, &hand);
    assert!(draw(&store, &ai, user(1)).await && store.persist().await.is_ok());
    assert!(hold(&store, 1, &daily, 10).await.unwrap().is_granted());
    store.persist().await.unwrap();
    store.inner.log.journal.broken.store(true, Ordering::Release);
    assert!(draw(&store, &ai, user(1)).await);
    // Either this one finds it, or the thread of the store has.
    let _ = store.persist().await;
    assert!(store.ailment().is_some_and(|why| why.contains("journal")));
    for _ in 0..3 {
        assert!(draw(&store, &ai, user(1)).await && store.persist().await.is_ok(), "limits go on");
    }
    assert_eq!(hold(&store, 2, &daily, 10).await, Err(StoreError::NotKept), "budgets close");
    store.settle(&[settlement(1, Outcome::Served)]).await.unwrap();
    assert!(store.kept().unwrap().failures > 0);
    store.inner.log.journal.broken.store(false, Ordering::Release);
    tokio::time::timeout(MINUTE, async {
        while store.ailment().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it heals");
    assert!(hold(&store, 3, &daily, 10).await.unwrap().is_granted());
    assert!(draw(&store, &ai, user(1)).await && store.persist().await.is_ok());
    store.kill();
    let store = open(&scratch.0, &hand);
    assert_eq!(remaining(&store, &ai, user(1)).await, 94, "what was counted meanwhile is kept");
    assert_eq!(stands(&store, &daily, user(1)).await, (20, 0));
}

/// The request that finds the disk broken must not go on: a kill would forget that it was counted.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_admitted_as_it_broke_is_refused() {
    let (scratch, hand) = (Scratch::new(), hand());
    let ai = limit("ai", &[(HOUR, 100)]);
    let store = open(&scratch.0, &hand);
    store.stop(End::Now);
    assert!(draw(&store, &ai, user(1)).await);
    store.inner.log.journal.broken.store(true, Ordering::Release);
    assert_eq!(store.persist().await, Err(StoreError::NotKept));
    assert!(draw(&store, &ai, user(1)).await && store.persist().await.is_ok(), "then it is known");
}

/// Who set `refuse` wants no request that is not counted for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_refuses_all_if_told_so() {
    let (scratch, hand) = (Scratch::new(), hand());
    let ai = limit("ai", &[(HOUR, 100)]);
    let refusing = EmbeddedConfig { on_failure: OnFailure::Refuse, ..config(&scratch.0) };
    let store = EmbeddedStore::new(refusing, hand.clock());
    store.open(Duration::ZERO).unwrap();
    store.inner.log.journal.broken.store(true, Ordering::Release);
    assert!(draw(&store, &ai, user(1)).await && store.persist().await.is_err());
    let draws = [Draw::one(&ai, user(1))];
    assert_eq!(store.admit(&Demand::draws(&draws)).await, Err(StoreError::NotKept));
    assert_eq!(store.persist().await, Err(StoreError::NotKept));
}

/// A database that can't be written is no reason to stop: the journal has it all. But somebody has to hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_is_told_of() {
    let (scratch, hand) = (Scratch::new(), hand());
    let api = limit("api", &[(HOUR, 10_000_000)]);
    let store = open(&scratch.0, &hand);
    let other = Connection::open(scratch.0.join("tidegate.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    tokio::time::timeout(MINUTE, async {
        while store.ailment().is_none() {
            for _ in 0..1000 {
                draw(&store, &api, user(1)).await;
            }
            store.persist().await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it is told");
    assert!(store.ailment().unwrap().contains("database"));
    other.execute_batch("ROLLBACK").unwrap();
    let left = remaining(&store, &api, user(1)).await;
    store.kill();
    assert_eq!(remaining(&open(&scratch.0, &hand), &api, user(1)).await, left);
}

/// The same on a disk that is really full, where this may be tried: it takes the right to mount one.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_that_fills_up_stops_nothing_and_heals() {
    let (scratch, hand) = (Scratch::new(), hand());
    fs::create_dir_all(&scratch.0).unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new(arguments[0]);
        command.args(&arguments[1..]).arg(&scratch.0).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs"]) {
        println!("not tried: nothing can be mounted here");
        return;
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _mounted = Mounted(&scratch.0);
    let (api, daily) = (limit("api", &[(HOUR, 10_000_000)]), budget("daily", 1000));
    let directory = scratch.0.join("store");
    let store = open(&directory, &hand);
    let ballast = scratch.0.join("ballast");
    let filled = fs::write(&ballast, vec![1; 14 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let mut drawn = 0;
    tokio::time::timeout(MINUTE, async {
        while !store.fails() {
            for id in 0..2000 {
                drawn += u64::from(draw(&store, &api, user(id)).await);
                let _ = store.persist().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it fails");
    assert!(draw(&store, &api, user(1)).await && store.persist().await.is_ok(), "limits go on");
    assert_eq!(hold(&store, 1, &daily, 10).await, Err(StoreError::NotKept), "budgets close");
    fs::remove_file(&ballast).unwrap();
    tokio::time::timeout(MINUTE, async {
        while store.ailment().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("it does not heal: {:?}", store.ailment()));
    assert!(hold(&store, 2, &daily, 10).await.unwrap().is_granted());
    store.persist().await.unwrap();
    store.kill();
    let store = open(&directory, &hand);
    let left = 10_000_000 * 2000 - drawn - 1;
    let mut remains = 0;
    for id in 0..2000 {
        remains += remaining(&store, &api, user(id)).await;
    }
    assert_eq!(remains, left);
    drop(store);
    // And one that is full already at the start.
    assert!(fs::write(&ballast, vec![1; 14 << 20]).is_err());
    let other = scratch.0.join("other");
    let error = error(&other);
    assert!(error.contains("free some space") && error.contains("other"), "{error}");
}
