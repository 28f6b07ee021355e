//! The walk over forms against the WHATWG's reader, on forms made of what parsers stumble over.

use proptest::prelude::*;

use super::*;
use crate::guard::json::Rule;

/// One to a dozen pieces: names in every spelling, and the bytes that mean something.
fn forms() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"message"[..],
        b"Message",
        b"mess%41ge",
        b"me%C5%BFsage",
        b"message[]",
        b"message[0]",
        b"messages[0][content]",
        b"=",
        b"=",
        b"&",
        b"&",
        b";",
        b"+",
        b" ",
        b"%",
        b"%00",
        b"%ff",
        b"\xff",
        b"%c3%a9",
        b"[",
        b"]",
        b".",
        b"text",
        b"other",
    ]);
    prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

fn message(name: &str) -> bool {
    fold(name.trim_start_matches(' ')) == "message"
}

proptest! {
    /// A message that the app reads and the gate does not, or reads otherwise, goes past its cap.
    #[test]
    fn agrees_with_the_whatwg(form in forms()) {
        let rules = FieldRules::compile([Rule::text("/message", 0), Rule::text("/messages/*/content", 1)]);
        let rules = rules.expect("the patterns are valid");
        let read = |strictness| {
            let mut found = Vec::new();
            let mut note = |field: Found<'_>| {
                assert!(field.span.end <= form.len());
                found.push((field.tag, field.text.to_owned()));
            };
            let mut scratch = Scratch::default();
            let outcome = scan(&form, strictness, &Caps::default(), &rules, &mut scratch, &mut note);
            outcome.map(|()| found).map_err(|fault| fault.kind)
        };
        let pairs: Vec<_> = form_urlencoded::parse(&form).collect();
        let messages: Vec<&str> = pairs.iter().filter(|(name, _)| message(name)).map(|(_, v)| &**v).collect();
        match read(Strictness::Lenient) {
            Ok(found) => {
                prop_assert!(messages.len() <= 1, "{messages:?}");
                prop_assert!(messages.iter().all(|message| found.contains(&(0, (*message).to_owned()))), "{found:?}");
            }
            Err(FaultKind::Duplicate) => prop_assert!(pairs.len() > 1),
            Err(FaultKind::NotUtf8) => prop_assert!(form.contains(&0xff) || form.windows(3).any(|o| o == b"%ff")),
            Err(FaultKind::Nul) => prop_assert!(form.windows(3).any(|octets| octets == b"%00")),
            Err(FaultKind::Semicolon) => prop_assert!(form.contains(&b';')),
            Err(kind) => prop_assert!(false, "{kind:?}"),
        }
        // Strictness refuses more, and reads nothing else.
        if let Ok(found) = read(Strictness::Strict) {
            prop_assert_eq!(Ok(found), read(Strictness::Lenient));
        }
    }
}
