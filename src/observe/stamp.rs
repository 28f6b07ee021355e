//! Time stamps for log lines, rendered once a second and thread.

use std::cell::Cell;

use time::OffsetDateTime;

use crate::state::clock::Timestamp;

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

thread_local! {
    static LAST: Cell<Second> = const { Cell::new(Second { at: 0, rfc3339: *b"1970-01-01T00:00:00", month: 0 }) };
}

/// A second and its text up to the fraction.
#[derive(Clone, Copy)]
struct Second {
    at: u64,
    rfc3339: [u8; 19],
    month: u8,
}

/// Appends RFC 3339 in UTC with milliseconds: `2026-07-01T12:30:05.042Z`.
pub fn push_rfc3339(out: &mut Vec<u8>, at: Timestamp) {
    out.extend_from_slice(&second(at).rfc3339);
    let millis = at.as_micros() / 1_000 % 1_000;
    out.push(b'.');
    out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis)]);
    out.push(b'Z');
}

/// The same, by itself.
pub fn rfc3339(at: Timestamp) -> String {
    let mut text = Vec::with_capacity(24);
    push_rfc3339(&mut text, at);
    String::from_utf8(text).unwrap_or_default()
}

/// Appends the Common Log Format's stamp: `01/Jul/2026:12:30:05 +0000`.
pub fn push_clf(out: &mut Vec<u8>, at: Timestamp) {
    let Second { rfc3339, month, .. } = second(at);
    let [y0, y1, y2, y3, _, _, _, _, d0, d1, _, clock @ ..] = rfc3339;
    let start = usize::from(month) * 3;
    out.extend_from_slice(&[d0, d1, b'/']);
    out.extend_from_slice(MONTHS.get(start..start + 3).unwrap_or(b"Jan"));
    out.extend_from_slice(&[b'/', y0, y1, y2, y3, b':']);
    out.extend_from_slice(&clock);
    out.extend_from_slice(b" +0000");
}

fn second(at: Timestamp) -> Second {
    let at = at.as_secs();
    LAST.with(|last| {
        if last.get().at != at {
            last.set(render(at));
        }
        last.get()
    })
}

fn render(at: u64) -> Second {
    // Past the year 9999 there is no RFC 3339; a clock that far off is shown as the epoch.
    let date = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let year: u64 = date.year().unsigned_abs().into();
    let month = u8::from(date.month());
    let mut rfc3339 = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, value: u64| {
        if let Some(pair) = rfc3339.get_mut(at..at + 2) {
            pair.copy_from_slice(&[digit(value / 10), digit(value)]);
        }
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, month.into());
    put(8, date.day().into());
    put(11, date.hour().into());
    put(14, date.minute().into());
    put(17, date.second().into());
    Second { at, rfc3339, month: month - 1 }
}

const fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: fn(&mut Vec<u8>, Timestamp), micros: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, Timestamp::from_micros(micros));
        String::from_utf8(out).unwrap()
    }

    /// Log shippers parse the stamp: a leap day or a missing zero would misplace every line.
    #[test]
    fn stamps_are_rfc3339_and_clf() {
        for (micros, rfc3339, clf) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (1_709_210_096_007_999, "2024-02-29T12:34:56.007Z", "29/Feb/2024:12:34:56 +0000"),
            (1_767_225_599_999_000, "2025-12-31T23:59:59.999Z", "31/Dec/2025:23:59:59 +0000"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(text(push_rfc3339, micros), rfc3339);
            assert_eq!(text(push_clf, micros), clf);
        }
        assert_eq!(text(push_rfc3339, u64::MAX), "1970-01-01T00:00:00.551Z");
    }
}
