//! The scanner against serde_json on mutated bodies: same verdict but for our stricter rules, same text, same fields.
//!
//! `SCANNER_CASES` sets how many bodies are tried (20,000 if unset), `SCANNER_SEED` where the sequence starts.

mod bodies;
mod tree;

use serde::de::IgnoredAny;

use self::bodies::body;
use self::tree::Tree;

use super::{Caps, FaultKind, FieldRules, Found, Rule, Scratch, Value, escape_into, scan, splice};

/// Low enough that the bodies made here meet both.
const CAPS: Caps = Caps { depth: 9, members: 40 };

const TEXTS: [&str; 7] = [
    "/message",
    "/messages/*/content",
    "/input",
    "/system",
    "/contents/*/parts/*/text",
    "/*/0/text",
    "/messages/1",
];
const VALUES: [&str; 5] = ["/model", "/stream", "/max_tokens", "/*/*/role", "/a~1b/~0"];

/// Whether two members differ by case only where a rule names them.
fn is_ambiguous(tree: &Tree) -> bool {
    TEXTS.iter().chain(&VALUES).enumerate().any(|(tag, pattern)| {
        tree.is_ambiguous(&pattern.split('/').skip(1).collect::<Vec<_>>(), tag < TEXTS.len())
    })
}

/// The fields that the rules name, found the slow way.
fn expected(tree: &Tree) -> Vec<String> {
    let mut fields = Vec::new();
    for (tag, pattern) in TEXTS.iter().chain(&VALUES).enumerate() {
        let (mut places, mut taken) = (Vec::new(), Vec::new());
        tree.at(&pattern.split('/').skip(1).collect::<Vec<_>>(), &mut places);
        for place in places {
            match place {
                _ if tag < TEXTS.len() => place.texts(&mut taken),
                Tree::Array(_) | Tree::Object(_) => {}
                scalar => taken.push(scalar),
            }
        }
        fields.extend(taken.into_iter().map(|value| format!("{tag} {value:?}")));
    }
    fields.sort();
    fields
}

/// The same description of what the scanner found, after checks on each span.
fn described(body: &[u8], found: &[Found<'_>]) -> Vec<String> {
    let describe = |found: &Found<'_>| {
        let written = &body[found.span.clone()];
        let value = match found.value {
            Value::Text(text) => {
                assert_eq!(text.raw().as_bytes(), written);
                assert_eq!(text.has_escapes(), written.contains(&b'\\'));
                let quoted = [b"\"", written, b"\""].concat();
                assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text.decode());
                assert_eq!(text.chars(), text.decode().chars().count());
                Tree::Text(text.decode().into_owned())
            }
            Value::Number(number) => {
                assert_eq!(number.as_bytes(), written);
                serde_json::from_str(number).unwrap()
            }
            Value::Bool(bool) => {
                assert_eq!(bool.to_string().as_bytes(), written);
                Tree::Bool(bool)
            }
            Value::Null => {
                assert_eq!(written, b"null");
                Tree::Null
            }
        };
        format!("{} {value:?}", found.tag)
    };
    let mut fields: Vec<_> = found.iter().map(describe).collect();
    fields.sort();
    fields
}

/// Writing each text back gives a body that reads the same, with every other byte in place.
fn written_back(body: &[u8], found: &[Found<'_>]) -> Vec<u8> {
    let mut edits = Vec::new();
    for Found { value, span, .. } in found {
        if let Value::Text(text) = value
            && edits.last().is_none_or(|(last, _)| last != span)
        {
            let mut escaped = Vec::new();
            escape_into(&text.decode(), &mut escaped);
            edits.push((span.clone(), escaped));
        }
    }
    splice(body, &edits).expect("fields come in the order of the body")
}

/// How often each way of a case was taken, so that a generator gone dull fails the test.
#[derive(Default, Debug)]
struct Tally {
    accepted: usize,
    refused_by_both: usize,
    stricter: usize,
    out_of_range: usize,
    fields: usize,
}

fn compare(body: &[u8], rules: &FieldRules, scratch: &mut Scratch, tally: &mut Tally) {
    let mut found = Vec::new();
    let outcome = scan(body, &CAPS, rules, scratch, &mut |field| found.push(field));
    let oracle = match serde_json::from_slice::<Tree>(body) {
        // serde_json has no room for such a number, the grammar has; without the numbers it can't say more.
        Err(error) if error.to_string().starts_with("number out of range") => {
            tally.out_of_range += 1;
            let grammatical = serde_json::from_slice::<IgnoredAny>(body).is_ok();
            return assert!(grammatical || outcome.is_err(), "a body that is not JSON passes");
        }
        oracle => oracle,
    };
    match (oracle, outcome) {
        (Ok(tree), Ok(())) => {
            assert!(tree.depth() <= CAPS.depth as usize && tree.members() <= CAPS.members as usize);
            assert!(!tree.repeats_a_name() && !is_ambiguous(&tree));
            let fields = expected(&tree);
            assert_eq!(described(body, &found), fields);
            let again: Tree = serde_json::from_slice(&written_back(body, &found)).unwrap();
            assert_eq!(again, tree);
            tally.accepted += 1;
            tally.fields += fields.len();
        }
        (Ok(tree), Err(fault)) => {
            let justified = match fault.kind {
                FaultKind::DuplicateKey => tree.repeats_a_name() || is_ambiguous(&tree),
                FaultKind::TooDeep { .. } => tree.depth() > CAPS.depth as usize,
                FaultKind::TooManyMembers { .. } => tree.members() > CAPS.members as usize,
                _ => false,
            };
            assert!(justified, "serde_json accepts, we say: {fault}");
            tally.stricter += 1;
        }
        (Err(error), Ok(())) => panic!("we accept, serde_json says: {error}"),
        (Err(_), Err(fault)) => {
            assert!(fault.at <= body.len());
            tally.refused_by_both += 1;
        }
    }
}

/// A body that we read differently from the upstream is a way round every guard.
#[test]
fn agrees_with_serde_json() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (cases, seed) = (number("SCANNER_CASES", 20_000), number("SCANNER_SEED", 1));
    let texts = TEXTS.iter().zip(0..).map(|(pattern, tag)| Rule::text(pattern, tag));
    let values = VALUES.iter().zip(TEXTS.len() as u16..).map(|(pattern, tag)| Rule::value(pattern, tag));
    let rules = FieldRules::compile(texts.chain(values)).unwrap();
    // One for all, so that what a case leaves behind would show in the next.
    let mut scratch = Scratch::default();
    let mut tally = Tally::default();
    for case in 0..cases {
        let body = body(seed + case);
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            compare(&body, &rules, &mut scratch, &mut tally);
        }));
        assert!(compared.is_ok(), "SCANNER_SEED={} body: {}", seed + case, body.escape_ascii());
    }
    println!("{tally:?}");
    let share = |part: usize| part as f64 / cases as f64;
    assert!(share(tally.accepted) > 0.2 && share(tally.refused_by_both) > 0.2, "{tally:?}");
    assert!(share(tally.stricter) > 0.01 && share(tally.out_of_range) < 0.1, "{tally:?}");
    assert!(tally.fields > tally.accepted, "{tally:?}");
}
