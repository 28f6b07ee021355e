//! All that was counted since the start, at one moment; two of them tell what happened in between.

use std::collections::BTreeMap;
use std::time::Duration;

/// Counts since the start, or between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests by route.
    pub routes: BTreeMap<String, u64>,
    /// Requests that were answered 5xx.
    pub errors: u64,
    /// Refused or failed requests by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Events of failed authentication.
    pub auth_failures: u64,
    /// Log lines lost.
    pub log_dropped: u64,
    /// Tries to settle that the store failed.
    pub store_failures: u64,
    /// Requests that took no longer than each of these seconds, longer ones included in none.
    pub durations: Vec<(f64, u64)>,
}

impl Totals {
    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.routes.values().sum()
    }

    /// Refused or failed requests in all.
    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    /// What was counted since `earlier`; what was not counted is left out.
    pub fn since(&self, earlier: &Self) -> Self {
        let names = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let more = |(name, count): (&String, &u64)| {
                let more = count.saturating_sub(then.get(name).copied().unwrap_or(0));
                (more > 0).then(|| (name.clone(), more))
            };
            now.iter().filter_map(more).collect()
        };
        let before = |place: usize| earlier.durations.get(place).map_or(0, |(_, count)| *count);
        let durations = self.durations.iter().enumerate();
        Self {
            routes: names(&self.routes, &earlier.routes),
            errors: self.errors.saturating_sub(earlier.errors),
            refusals: names(&self.refusals, &earlier.refusals),
            auth_failures: self.auth_failures.saturating_sub(earlier.auth_failures),
            log_dropped: self.log_dropped.saturating_sub(earlier.log_dropped),
            store_failures: self.store_failures.saturating_sub(earlier.store_failures),
            durations: durations.map(|(at, (le, n))| (*le, n.saturating_sub(before(at)))).collect(),
        }
    }

    /// The routes with the most requests, most first.
    pub fn top_routes(&self, most: usize) -> Vec<(&str, u64)> {
        let mut routes: Vec<_> = self.routes.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        routes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        routes.truncate(most);
        routes
    }

    /// The time within which this share of the requests was done, interpolated in its bucket as Prometheus does
    /// (`histogram_quantile`); the last bound where it was longer. `None` without requests.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = share * self.requests() as f64;
        let (mut below, mut start) = (0, 0.0);
        for (bound, count) in &self.durations {
            if *count as f64 >= rank && *count > 0 {
                let part = (rank - below as f64) / (count - below).max(1) as f64;
                return Some(Duration::from_secs_f64((start + (bound - start) * part).max(0.0)));
            }
            (below, start) = (*count, *bound);
        }
        (self.requests() > 0).then(|| Duration::from_secs_f64(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A summary that is off by what came before tells the operator nothing of this hour.
    #[test]
    fn the_difference_is_what_came_since() {
        let totals = |chat, page, refused, durations: [u64; 3]| Totals {
            routes: [("chat".to_owned(), chat), ("page".to_owned(), page)].into(),
            refusals: [("rate_limited".to_owned(), refused)].into(),
            durations: [0.1, 1.0, 10.0].into_iter().zip(durations).collect(),
            ..Totals::default()
        };
        let hour = totals(150, 4, 7, [100, 140, 154]).since(&totals(50, 4, 7, [50, 50, 54]));
        assert_eq!((hour.requests(), hour.refused()), (100, 0));
        assert_eq!(hour.top_routes(5), [("chat", 100)]);
        // 50 took up to 0.1 s, 40 up to 1 s, 10 up to 10 s.
        assert_eq!(hour.quantile(0.5), Some(Duration::from_millis(100)));
        assert_eq!(hour.quantile(0.95), Some(Duration::from_millis(5500)));
        assert_eq!(Totals::default().quantile(0.5), None);
    }
}
