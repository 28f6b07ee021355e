//! Finds where an HTTP/1 head ends while its bytes arrive, as the most lenient parser behind the gate would.

use memchr::memchr;

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head goes on.
    More,
    /// The head ends before this offset in the bytes of this call.
    End(usize),
    /// The cap is reached and the head has not ended.
    TooLong,
}

/// Where in the head the scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the empty lines that parsers skip before a request line (RFC 9112 §2.2).
    Before,
    Line,
    /// Behind a line feed.
    Fed,
    /// Behind a line feed and a carriage return.
    FedReturn,
}

/// Scans one head; make a new one for each.
///
/// Bare line feeds end lines here: a head has to be found before it can be refused for having them.
#[derive(Clone, Debug)]
pub struct HeadScanner {
    left: usize,
    at: At,
}

impl HeadScanner {
    /// `cap`: how many bytes the head may have, the empty lines before it and its last line end included.
    pub fn new(cap: usize) -> Self {
        Self { left: cap, at: At::Before }
    }

    /// Takes the next bytes as they arrive.
    pub fn feed(&mut self, bytes: &[u8]) -> Scan {
        let window = bytes.get(..self.left).unwrap_or(bytes);
        let mut i = 0;
        while let Some(&byte) = window.get(i) {
            i += 1;
            self.at = match (self.at, byte) {
                (At::Before, b'\r' | b'\n') => At::Before,
                (At::Fed | At::FedReturn, b'\n') => {
                    self.left -= i;
                    return Scan::End(i);
                }
                (At::Fed, b'\r') => At::FedReturn,
                (_, b'\n') => At::Fed,
                _ => match memchr(b'\n', window.get(i..).unwrap_or_default()) {
                    Some(line) => {
                        i += line + 1;
                        At::Fed
                    }
                    None => {
                        i = window.len();
                        At::Line
                    }
                },
            };
        }
        self.left -= window.len();
        if window.len() < bytes.len() { Scan::TooLong } else { Scan::More }
    }
}

/// Length of the head at the start of `buf`, its last line end included; `None` if it goes on.
pub fn head_end(buf: &[u8]) -> Option<usize> {
    match HeadScanner::new(usize::MAX).feed(buf) {
        Scan::End(end) => Some(end),
        Scan::More | Scan::TooLong => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_head_ends_where_the_body_begins() {
        for head in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"\n\nGET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: \r\r\nY: z\r\n\r\r\nZ: \r\n\r\n",
        ] {
            let whole = [head, b"\r\n\r\nbody"].concat();
            assert_eq!(head_end(&whole), Some(head.len()), "{}", head.escape_ascii());
            assert_eq!(head_end(&head[..head.len() - 1]), None, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_head_beyond_the_cap_is_given_up_at_the_cap() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(HeadScanner::new(head.len()).feed(head), Scan::End(head.len()));
        assert_eq!(HeadScanner::new(head.len() - 1).feed(head), Scan::TooLong);
        let mut drip = HeadScanner::new(64);
        for _ in 0..64 {
            assert_eq!(drip.feed(b"\n"), Scan::More);
        }
        assert_eq!(drip.feed(b"\n"), Scan::TooLong);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn how_a_head_is_cut_into_packets_does_not_matter(
            bytes in proptest::collection::vec(proptest::sample::select(&b"\r\n\nG: "[..]), 0..40),
            cut in 0..40usize,
        ) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut scanner = HeadScanner::new(usize::MAX);
            let end = match scanner.feed(first) {
                Scan::End(end) => Some(end),
                _ => match scanner.feed(second) {
                    Scan::End(end) => Some(first.len() + end),
                    _ => None,
                },
            };
            prop_assert_eq!(end, head_end(&bytes));
        }
    }
}
