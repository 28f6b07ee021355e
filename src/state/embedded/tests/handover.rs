//! One process takes the store over from another that still serves.

use futures_util::FutureExt;

use super::*;

/// Waits until `is`, which another thread brings about.
async fn till(what: &str, is: impl Fn() -> bool) {
    let waited = tokio::time::timeout(MINUTE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

/// An upgrade would let everyone begin anew, free claims of requests that are under way, or bill calls twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_process_still_does_reaches_the_new_one() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (ai, daily) = (limit("ai", &[(HOUR, 100)]), budget("daily", 100_000));
    let old = open(&scratch.0, &hand);
    assert!(draw(&old, &ai, user(1)).await);
    for id in 1..=3 {
        assert!(take(&old, id, id).await.is_granted());
        assert!(hold(&old, 10 + id, &daily, 100).await.unwrap().is_granted());
    }
    old.persist().await.unwrap();
    old.hand_over().unwrap();
    let new = open(&scratch.0, &hand);
    assert_eq!(remaining(&new, &ai, user(1)).await, 99);
    assert_eq!(stands(&new, &daily, user(1)).await, (0, 300), "calls under way are held for");
    for key in 1..=3 {
        let Decision::Denied(Denial::Claimed { by, .. }) = take(&new, 20 + key, key).await else {
            panic!("{key} is under way")
        };
        assert!(by.under_way);
    }
    // The old one goes on.
    assert!(draw(&old, &ai, user(1)).await && old.persist().await.is_ok());
    old.ban(ban(5, hand.clock().now())).await.unwrap();
    old.settle(&[settlement(1, Outcome::Served), settlement(2, Outcome::UpstreamFailed)]).await.unwrap();
    let spent = Some(smallvec::smallvec![7]);
    old.settle(&[Settlement { spent, ..settlement(11, Outcome::Served) }]).await.unwrap();
    let balance = || stands(&new, &daily, user(1)).now_or_never().expect("at once");
    till("the last that it did", || balance() == (7, 200)).await;
    assert!(new.bans().in_force(user(5)).is_some());
    assert_eq!(remaining(&new, &ai, user(1)).await, 98);
    assert!(!take(&new, 31, 1).await.is_granted(), "served");
    assert!(take(&new, 32, 2).await.is_granted(), "failed");
    assert!(!take(&new, 33, 3).await.is_granted(), "still under way");
    // What begins in the old one now may not pass what is certain already.
    assert_eq!(hold(&old, 40, &daily, 90_000).await, Err(StoreError::NotKept));
    old.settle(&[settlement(40, Outcome::NeverSent)]).await.unwrap();
    drop(old);
    till("its end", || balance() == (207, 0)).await;
    let left = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("drain-")));
    assert!(take(&new, 34, 3).await.is_granted(), "nobody is on it any more");
    new.persist().await.unwrap();
    new.kill();
    let next = open(&scratch.0, &hand);
    assert_eq!((remaining(&next, &ai, user(1)).await, stands(&next, &daily, user(1)).await), (98, (207, 0)));
    assert!(!take(&next, 41, 1).await.is_granted() && next.bans().in_force(user(5)).is_some());
}

/// An old process that is killed while it drains must leave nothing held for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_it_drains_is_settled() {
    let (scratch, hand) = (Scratch::new(), hand());
    let (ai, daily) = (limit("ai", &[(HOUR, 100)]), budget("daily", 1000));
    let old = open(&scratch.0, &hand);
    assert!(hold(&old, 1, &daily, 100).await.unwrap().is_granted() && take(&old, 2, 7).await.is_granted());
    old.persist().await.unwrap();
    old.hand_over().unwrap();
    assert!(draw(&old, &ai, user(1)).await && old.persist().await.is_ok());
    old.kill();
    let new = open(&scratch.0, &hand);
    assert_eq!((remaining(&new, &ai, user(1)).await, stands(&new, &daily, user(1)).await), (99, (100, 0)));
    assert!(take(&new, 3, 7).await.is_granted());
}

/// The new process would find the store taken, or the old one still writing to it.
#[test]
fn who_waits_for_the_store_gets_it() {
    let (scratch, hand) = (Scratch::new(), hand());
    let old = open(&scratch.0, &hand);
    let new = EmbeddedStore::new(config(&scratch.0), hand.clock());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| new.open(MINUTE).map(|_| ()));
        park_timeout(Duration::from_millis(50));
        assert!(!waits.is_finished());
        old.hand_over().unwrap();
        assert!(waits.join().unwrap().is_ok());
    });
    old.close();
}
