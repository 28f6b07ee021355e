//! Budgets: what may be spent in each hour, day, week or month of the calendar, held before a call and settled after (B1,
//! B3). The unit is the budget's own: micro-dollars, calls, tokens.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::tz::TimeZone;
use jiff::{Span, ToSpan, ZonedDateTime};
use parking_lot::Mutex;

use super::clock::Timestamp;
use super::subject::Subject;

/// How long a budget lasts, by the calendar of its time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calendar {
    /// From the full hour.
    Hour,
    /// From midnight; 23 or 25 hours where clocks are changed.
    Day,
    /// From Monday's midnight (ISO 8601).
    Week,
    /// From midnight of the first.
    Month,
}

/// One period, from its start to before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Its first microsecond.
    pub start: Timestamp,
    /// The first of the next.
    pub end: Timestamp,
}

/// A budget as it runs. Accounts belong to the name and the calendar: after a reload that changes only `max` they count
/// on where they stand.
#[derive(Debug)]
pub struct BudgetSpec {
    name: Box<str>,
    max: u64,
    calendar: Calendar,
    zone: TimeZone,
    counter: u64,
    /// The period last asked for: most often, the next question is about the same.
    period: Mutex<Period>,
}

/// An amount that may be spent at most, for `subject`.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// The budget that it is held in.
    pub budget: &'a BudgetSpec,
    /// Whose account.
    pub subject: Subject,
    /// How much, in the budget's unit.
    pub amount: u64,
}

/// A time zone that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownZone(pub Box<str>);

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time zone; write one of the IANA database, such as Europe/Berlin or UTC",
            self.0
        )
    }
}

impl std::error::Error for UnknownZone {}

impl BudgetSpec {
    /// A budget of `max` for each period of `calendar` in the IANA time zone `zone`.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn new(name: &str, max: u64, calendar: Calendar, zone: &str) -> Result<Self, UnknownZone> {
        let zone = TimeZone::get(zone).map_err(|_| UnknownZone(zone.into()))?;
        // Fixed keys: equal names must give equal counters across reloads. Names are the operator's own.
        let mut hasher = DefaultHasher::new();
        (name, calendar).hash(&mut hasher);
        let never = Period { start: Timestamp::default(), end: Timestamp::default() };
        Ok(Self {
            name: name.into(),
            max,
            calendar,
            zone,
            counter: hasher.finish(),
            period: Mutex::new(never),
        })
    }

    /// One of `shares` equal shares of `percent` of it, in an account of the same name.
    pub(crate) fn part(&self, percent: u32, shares: u32) -> Self {
        let part = u128::from(self.max) * u128::from(percent) / 100 / u128::from(shares.max(1));
        Self {
            name: self.name.clone(),
            max: u64::try_from(part).unwrap_or(self.max),
            calendar: self.calendar,
            zone: self.zone.clone(),
            counter: self.counter,
            period: Mutex::new(*self.period.lock()),
        }
    }

    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What may be spent in a period.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// How long it lasts.
    pub(crate) const fn calendar(&self) -> Calendar {
        self.calendar
    }

    /// Tells its accounts from those of all other budgets.
    pub(crate) const fn counter(&self) -> u64 {
        self.counter
    }

    /// The period that `now` is in.
    pub fn period(&self, now: Timestamp) -> Period {
        let mut known = self.period.lock();
        if !(known.start..known.end).contains(&now) {
            *known = self.calendar.period(now, &self.zone);
        }
        *known
    }
}

impl Calendar {
    fn period(self, now: Timestamp, zone: &TimeZone) -> Period {
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let found = jiff::Timestamp::from_microsecond(micros)
            .and_then(|instant| self.around(&instant.to_zoned_datetime(zone.clone())));
        // Beyond the calendar's end, in the year 9999: one period that never ends.
        found.unwrap_or(Period { start: now, end: Timestamp::from_micros(u64::MAX) })
    }

    fn around(self, now: &ZonedDateTime) -> Result<Period, jiff::Error> {
        let midnight = now.start_of_day()?;
        let (start, length): (ZonedDateTime, Span) = match self {
            Calendar::Hour => (full_hour(now)?, 1.hour()),
            Calendar::Day => (midnight, 1.day()),
            Calendar::Week => {
                let since_monday = i64::from(now.weekday().to_monday_zero_offset());
                (midnight.checked_sub(since_monday.days())?.start_of_day()?, 7.days())
            }
            Calendar::Month => (midnight.first_of_month()?.start_of_day()?, 1.month()),
        };
        let next = start.checked_add(length)?;
        // A midnight that a change of clocks skips begins the day later.
        let end = if self == Calendar::Hour { next } else { next.start_of_day()? };
        Ok(Period { start: timestamp(&start), end: timestamp(&end) })
    }
}

/// The full hour at or before `now`, by the clock on the wall: in zones that are off by half an hour, too.
fn full_hour(now: &ZonedDateTime) -> Result<ZonedDateTime, jiff::Error> {
    let time = now.time();
    let into = i64::from(time.minute()) * 60 + i64::from(time.second());
    now.checked_sub(into.seconds())?.checked_sub(i64::from(time.subsec_nanosecond()).nanoseconds())
}

fn timestamp(at: &ZonedDateTime) -> Timestamp {
    Timestamp::from_micros(u64::try_from(at.timestamp().as_microsecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        timestamp(&text.parse().unwrap())
    }

    /// The period around `now` of a budget of `calendar`, as texts in `zone`.
    fn period(calendar: Calendar, zone: &str, now: &str) -> [String; 2] {
        let budget = BudgetSpec::new("b", 1, calendar, zone).unwrap();
        let period = budget.period(at(now));
        assert!((period.start..period.end).contains(&at(now)));
        [period.start, period.end].map(|edge| {
            let instant = jiff::Timestamp::from_microsecond(edge.as_micros() as i64).unwrap();
            instant.to_zoned_datetime(TimeZone::get(zone).unwrap()).strftime("%F %R %:z").to_string()
        })
    }

    /// A daily budget that ended an hour off would leave the operator without one, or his users without a day's worth.
    #[test]
    fn days_are_those_of_the_zone_whatever_its_clocks_do() {
        let berlin = "Europe/Berlin";
        let day = |now| period(Calendar::Day, berlin, now);
        assert_eq!(
            day("2026-03-29T12:00:00[Europe/Berlin]"),
            ["2026-03-29 00:00 +01:00", "2026-03-30 00:00 +02:00"]
        );
        assert_eq!(
            day("2026-10-25T02:30:00+01:00[Europe/Berlin]"),
            ["2026-10-25 00:00 +02:00", "2026-10-26 00:00 +01:00"]
        );
        // There is no midnight on that day.
        assert_eq!(
            period(Calendar::Day, "America/Santiago", "2026-09-06T12:00:00[America/Santiago]")[0],
            "2026-09-06 01:00 -03:00"
        );
    }

    #[test]
    fn hours_weeks_and_months_begin_where_people_say_they_do() {
        let kolkata = "Asia/Kolkata";
        assert_eq!(
            period(Calendar::Hour, kolkata, "2026-11-26T09:31:59.999[Asia/Kolkata]"),
            ["2026-11-26 09:00 +05:30", "2026-11-26 10:00 +05:30"]
        );
        assert_eq!(
            period(Calendar::Week, kolkata, "2026-11-29T23:59:59[Asia/Kolkata]"),
            ["2026-11-23 00:00 +05:30", "2026-11-30 00:00 +05:30"]
        );
        assert_eq!(
            period(Calendar::Month, kolkata, "2026-02-01T00:00:00[Asia/Kolkata]"),
            ["2026-02-01 00:00 +05:30", "2026-03-01 00:00 +05:30"]
        );
        // The hour that comes twice is two hours.
        let twice = |offset| {
            period(Calendar::Hour, "Europe/Berlin", &format!("2026-10-25T02:10:00{offset}[Europe/Berlin]"))
        };
        assert_eq!(twice("+02:00")[1], twice("+01:00")[0]);
    }

    #[test]
    fn a_zone_that_is_none_is_told() {
        let error = BudgetSpec::new("b", 1, Calendar::Day, "Europe/Atlantis").unwrap_err();
        assert!(error.to_string().contains("Europe/Atlantis"));
    }
}
