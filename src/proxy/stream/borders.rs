//! Where a stream may be interrupted: only there can a line of the gate's own stand without touching an event.

use super::Form;

/// How a stream ends its lines (WHATWG HTML §9.2.5). Clients that split at one of them only would not see another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// `\n`.
    Lf,
    /// `\r\n`.
    CrLf,
    /// `\r`.
    Cr,
}

impl LineEnd {
    /// Its characters.
    pub const fn text(self) -> &'static str {
        match self {
            LineEnd::Lf => "\n",
            LineEnd::CrLf => "\r\n",
            LineEnd::Cr => "\r",
        }
    }
}

/// A byte order mark may stand before the first event.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Follows a stream. Looks at the ends of its pieces only; when in doubt, there is no border.
#[derive(Debug)]
pub struct Borders {
    form: Form,
    begun: bool,
    /// The last bytes. Nothing sent is as good as a blank line.
    tail: [u8; 3],
}

impl Borders {
    /// The beginning of a stream, which is a border.
    pub fn new(form: Form) -> Self {
        Self { form, begun: false, tail: *b"\n\n\n" }
    }

    /// Whether anything of the stream has passed.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Goes on to the end of `piece`.
    pub fn pass(&mut self, piece: &[u8]) {
        let piece = match (self.begun, piece) {
            (_, []) => return,
            (false, piece) => piece.strip_prefix(BOM).unwrap_or(piece),
            (true, piece) => piece,
        };
        self.begun = true;
        if let [.., a, b, c] = piece {
            self.tail = [*a, *b, *c];
        } else {
            for byte in piece {
                self.tail = [self.tail[1], self.tail[2], *byte];
            }
        }
    }

    /// The line end in use, if the stream stands between two events (of [`Form::Lines`]: between two lines).
    pub fn here(&self) -> Option<LineEnd> {
        match (self.form, self.tail) {
            (Form::Lines, [_, _, b'\n']) | (Form::Events, [_, b'\n', b'\n']) => Some(LineEnd::Lf),
            (Form::Events, [b'\n' | b'\r', b'\r', b'\n']) => Some(LineEnd::CrLf),
            (Form::Events, [_, b'\r', b'\r']) => Some(LineEnd::Cr),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(form: Form, pieces: &[&[u8]]) -> Option<LineEnd> {
        let mut borders = Borders::new(form);
        pieces.iter().for_each(|piece| borders.pass(piece));
        borders.here()
    }

    /// A heartbeat that is never sent saves no connection; one in an event spoils it.
    #[test]
    fn borders_are_where_a_blank_line_was() {
        let events: &[(&[&[u8]], Option<LineEnd>)] = &[
            (&[], Some(LineEnd::Lf)),
            (&[BOM], Some(LineEnd::Lf)),
            (&[BOM, b"data: a\n\n"], Some(LineEnd::Lf)),
            (&[b"data: a\n\n"], Some(LineEnd::Lf)),
            (&[b"data: a\n", b"\n"], Some(LineEnd::Lf)),
            (&[b"data: a\r\n\r\n"], Some(LineEnd::CrLf)),
            (&[b"data: a\r", b"\n", b"\r", b"\n"], Some(LineEnd::CrLf)),
            (&[b"data: a\r\r"], Some(LineEnd::Cr)),
            (&[b": ping\n\n"], Some(LineEnd::Lf)),
            (&[b"data: a\n"], None),
            (&[b"data: a\r\n"], None),
            (&[b"data: a\r\n\r"], None),
            (&[b"data: a\r"], None),
            (&[b"data: a"], None),
            (&[b"d"], None),
            (&[b"data: a\n\n", b"d"], None),
            (&[b"data: a\n\ndata: b\n"], None),
            (&[b"data: a\n\n", BOM], None),
        ];
        for (pieces, border) in events {
            assert_eq!(after(Form::Events, pieces), *border, "{pieces:?}");
        }
        assert_eq!(after(Form::Lines, &[b"{\"a\":1}\n"]), Some(LineEnd::Lf));
        assert_eq!(after(Form::Lines, &[b"{\"a\":1}\r\n", b"{"]), None);
    }

    /// A parser by the letter of the standard: each event's fields as they stood.
    fn events(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut rest = stream.strip_prefix(BOM).unwrap_or(stream);
        let (mut events, mut event) = (Vec::new(), Vec::new());
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (line, after) = rest.split_at(end);
            rest = after.strip_prefix(b"\r\n").unwrap_or(&after[1..]);
            match line {
                [] if event.is_empty() => {}
                [] => events.push(std::mem::take(&mut event)),
                [b':', ..] => {}
                field => event.push(field.to_vec()),
            }
        }
        events
    }

    proptest! {
        /// Whatever a stream holds and wherever it is cut: comments at its borders change no event.
        #[test]
        fn comments_at_borders_change_nothing(
            pieces in prop::collection::vec("(\u{FEFF}|[ab:\r\n]){0,6}", 0..12),
        ) {
            let mut borders = Borders::new(Form::Events);
            let (mut plain, mut commented) = (Vec::new(), Vec::new());
            for piece in pieces {
                let piece = piece.as_bytes();
                plain.extend_from_slice(piece);
                commented.extend_from_slice(piece);
                borders.pass(piece);
                if let Some(end) = borders.here().filter(|_| borders.begun()) {
                    commented.extend_from_slice(format!(":{0}{0}", end.text()).as_bytes());
                }
            }
            prop_assert_eq!(events(&plain), events(&commented));
        }
    }
}
