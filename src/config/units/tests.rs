use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn span(text: &str) -> Result<u128, String> {
    text.parse::<Span>().map(|span| span.duration().as_millis())
}

fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(ByteSize::bytes)
}

fn rate(text: &str) -> Result<(u64, u64), String> {
    text.parse::<Rate>().map(|rate| (rate.max, rate.window.as_secs()))
}

/// Nobody guesses whether 30 is seconds or milliseconds.
#[test]
fn spans_need_units() {
    for (text, millis) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("5min", 300_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        (" 1h 30 minutes ", 5_400_000),
        ("0s", 0),
        ("36500d", 3_153_600_000_000),
    ] {
        assert_eq!(span(text), Ok(millis), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "-5s",
        "1.5h",
        "5M",
        "5x",
        "1h30",
        "30m1h",
        "1s1s",
        "5 5s",
        "36501d",
        "99999999999999999999s",
    ] {
        assert!(span(text).is_err(), "{text}");
    }
    assert!(span("18446744073709551615d").expect_err("overflow").contains("36500 days"));
    assert!(span("5").expect_err("no unit").contains("ms, s, m (or min), h, d"));
}

/// A cap copied from nginx or from Kubernetes means here what it means there.
#[test]
fn sizes_know_both_kinds_of_units() {
    for (text, bytes) in [
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65_536),
        ("8k", 8_192),
        ("1m", 1_048_576),
        ("1M", 1_048_576),
        ("1Mi", 1_048_576),
        ("20MB", 20_000_000),
        ("1kB", 1_000),
        ("1 GiB", 1 << 30),
        ("0", 0),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for text in ["", "k", "-1", "1.5MiB", "1x", "1 1", "1kBs", "20000000t"] {
        assert!(size(text).is_err(), "{text}");
    }
}

/// A limit is what it says, to the second.
#[test]
fn rates_have_a_number_and_a_time() {
    for (text, wanted) in [
        ("60/min", (60, 60)),
        ("1000/h", (1_000, 3_600)),
        ("5/10s", (5, 10)),
        ("3/15min", (3, 900)),
        ("1 / second", (1, 1)),
        ("2/days", (2, 86_400)),
        ("2/week", (2, 604_800)),
        ("500/month", (500, 2_592_000)),
        ("1GiB/d", (1 << 30, 86_400)),
        ("10 MB / 2h", (10_000_000, 7_200)),
        ("7/1h30m", (7, 5_400)),
    ] {
        assert_eq!(rate(text), Ok(wanted), "{text}");
    }
    for text in [
        "",
        "60",
        "60/",
        "/min",
        "60/min/h",
        "-1/s",
        "+1/s",
        "1/0s",
        "1/10",
        "60 per min",
        "99999999999999999999/s",
    ] {
        assert!(rate(text).is_err(), "{text}");
    }
    assert!(rate("0/min").expect_err("zero").contains("`off`"));
}

fn round_trip<T: Display + FromStr<Err = String> + PartialEq + Debug>(value: &T) {
    assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(value));
}

/// What `--explain` and the status endpoint print is short, and can be pasted back.
#[test]
fn quantities_print_short() {
    assert_eq!(Span::from_millis(5_400_001).to_string(), "1h30m1ms");
    assert_eq!(Span::from_secs(0).to_string(), "0s");
    assert_eq!(
        ["65536", "20000000", "1500", "0"].map(|t| size(t).map(|b| ByteSize(b).to_string())),
        [Ok("64KiB".into()), Ok("20MB".into()), Ok("1500B".into()), Ok("0B".into())]
    );
    assert_eq!(Rate { max: 3, window: Duration::from_secs(900) }.to_string(), "3/15m");
    assert_eq!(Rate { max: 60, window: Duration::from_secs(60) }.to_string(), "60/min");
}

proptest! {
    /// Printing loses nothing.
    #[test]
    fn printed_quantities_parse_back(millis in 0u64..3_153_600_000_000, bytes: u64, max in 1u64.., window in 1u64..1_000_000_000) {
        round_trip(&Span::from_millis(millis));
        round_trip(&ByteSize(bytes));
        round_trip(&Rate { max, window: Duration::from_millis(window) });
    }

    /// Whatever is written, the answer is a value or an error.
    #[test]
    fn nothing_panics(text in "[0-9]{0,21}[ /]?[0-9]{0,3}[a-zA-Zéµ]{0,7}[0-9]{0,2}[a-z]{0,3}") {
        let _ = (span(&text), size(&text), rate(&text));
    }
}
