//! Bans, and limits that somebody sets back.

use super::{Bed, MINUTE, limit, refused, user};
use crate::state::{Ban, Store};

/// Who is banned must be kept out on the next request, and let in again when an operator says so.
pub(super) async fn bans_are_in_force_at_once<S: Store>(bed: Bed<S>) {
    let now = bed.hand.clock().now();
    let until = now.after(MINUTE);
    let ban = Ban {
        subject: user(1),
        since: now,
        until,
        remembered_until: until.after(MINUTE),
        level: 1,
        reason: "rate_limited".into(),
        by_hand: false,
    };
    assert!(bed.store.bans().in_force(user(1)).is_none());
    assert!(bed.store.ban(ban.clone()).await.unwrap());
    assert_eq!(bed.store.bans().in_force(user(1)).as_deref(), Some(&ban));
    let longer = Ban { until: until.after(MINUTE), level: 2, ..ban };
    assert!(bed.store.ban(longer.clone()).await.unwrap());
    assert_eq!(bed.store.lift(user(1)).await.unwrap().as_deref(), Some(&longer));
    assert!(bed.store.bans().in_force(user(1)).is_none() && bed.store.lift(user(1)).await.unwrap().is_none());
}

/// An operator who frees a user must free that user, from every window, and nobody else.
pub(super) async fn a_reset_limit_is_whole<S: Store>(bed: Bed<S>) {
    let (ai, api) = (limit("ai", &[(MINUTE, 2), (60 * MINUTE, 3)]), limit("api", &[(MINUTE, 1)]));
    for subject in [user(1), user(2)] {
        bed.granted(&ai, subject, 2).await;
        bed.granted(&api, subject, 1).await;
    }
    bed.store.reset(&[crate::state::Draw::one(&ai, user(1))]).await.unwrap();
    bed.granted(&ai, user(1), 2).await;
    refused(bed.one(&ai, user(1)).await);
    refused(bed.one(&ai, user(2)).await);
    refused(bed.one(&api, user(1)).await);
}
