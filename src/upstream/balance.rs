//! Which of several servers a request goes to.
//!
//! Three policies in a few lines stand here instead of pingora-load-balancing: its selection knows no connections in
//! flight, its health checks only addresses, and the exchange would need a second way beside it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::endpoint::Endpoint;

/// Which server a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest requests; in turn where several have as few.
    LeastConnections,
    /// The same for the same subject.
    Hash(HashBy),
}

/// Whose requests stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashBy {
    /// A user's; who shows no key goes by address.
    User,
    /// A session's; who has none goes by address.
    Session,
    /// An address's.
    Address,
}

/// Chooses among those `endpoints` for which `open` is true, for the request number `turn`, which `subject` sends.
pub(super) fn choose(
    balance: Balance,
    endpoints: &[Arc<Endpoint>],
    turn: usize,
    subject: u64,
    open: impl Fn(usize, &Endpoint) -> bool,
) -> Option<(usize, &Arc<Endpoint>)> {
    let candidates = || endpoints.iter().enumerate().filter(|(index, endpoint)| open(*index, endpoint));
    // Counted among those that are open: skipping the others would send their share to the next in line.
    let in_turn = |count: usize| turn.checked_rem(count);
    match balance {
        Balance::RoundRobin => candidates().nth(in_turn(candidates().count())?),
        Balance::LeastConnections => {
            let least = candidates().map(|(_, endpoint)| endpoint.busy()).min()?;
            let idle = || candidates().filter(|(_, endpoint)| endpoint.busy() <= least);
            idle().nth(in_turn(idle().count())?).or_else(|| candidates().next())
        }
        Balance::Hash(_) => candidates().max_by_key(|(_, endpoint)| mixed(endpoint.hash, subject)),
    }
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each subject ranks the servers in an order of its own and goes to
/// the first that is open, so one that closes moves only its own subjects. Mixed by the finalizer of SplitMix64 (Steele,
/// Lea and Flood, 2014).
fn mixed(server: u64, subject: u64) -> u64 {
    let mut z = (server ^ subject).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::endpoint::{Address, Member};
    use super::super::server::Server;
    use super::*;

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        let server = Server::parse("http://a").expect("a server");
        let member = Arc::new(Member { server, tls: None, lost: AtomicBool::new(false) });
        let address = |port| Address::Inet(([10, 0, 0, 1], port).into());
        (1..=count).map(|port| Arc::new(Endpoint::new(member.clone(), address(port), false))).collect()
    }

    /// How often each is chosen by `subjects` requests.
    fn counts(balance: Balance, of: &[Arc<Endpoint>], subjects: u64, closed: Option<usize>) -> Vec<usize> {
        let mut counts = vec![0; of.len()];
        for number in 0..subjects {
            let open = |index, _: &Endpoint| Some(index) != closed;
            let (index, _) = choose(balance, of, number as usize, number, open).expect("one");
            counts[index] += 1;
        }
        counts
    }

    /// Servers of one kind are bought to share the work.
    #[test]
    fn turns_are_even_also_while_one_rests() {
        let three = endpoints(3);
        assert_eq!(counts(Balance::RoundRobin, &three, 9, None), [3, 3, 3]);
        assert_eq!(counts(Balance::RoundRobin, &three, 8, Some(1)), [4, 0, 4]);
        assert_eq!(counts(Balance::LeastConnections, &three, 9, None), [3, 3, 3]);
        assert!(
            choose(Balance::RoundRobin, &three, 0, 0, |_, _| false).is_none()
                && choose(Balance::LeastConnections, &[], 0, 0, |_, _| true).is_none()
        );
    }

    /// A server that is stuck must not get as much as the others.
    #[test]
    fn the_least_busy_is_chosen() {
        let three = endpoints(3);
        three[0].busy.store(5, Ordering::Relaxed);
        three[2].busy.store(4, Ordering::Relaxed);
        assert_eq!(counts(Balance::LeastConnections, &three, 4, None), [0, 4, 0]);
    }

    /// A model's cache is warm where the session was before; a server that rests must not chill the others' too.
    #[test]
    fn subjects_stay_and_few_move() {
        let five = endpoints(5);
        let hash = Balance::Hash(HashBy::Session);
        let spread = counts(hash, &five, 10_000, None);
        assert!(spread.iter().all(|count| (1_800..2_200).contains(count)), "{spread:?}");
        for subject in 0..1_000 {
            let place = |closed| choose(hash, &five, 0, subject, |i, _| Some(i) != closed).expect("one").0;
            let usual = place(None);
            assert!((0..5).filter(|closed| *closed != usual).all(|closed| place(Some(closed)) == usual));
            assert_ne!(place(Some(usual)), usual);
        }
    }
}
