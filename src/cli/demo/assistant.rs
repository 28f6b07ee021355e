//! The demo's "assistant": a few fixed rules, no model, no network. The same words always get the same answer.

/// Words of the caller's text that an answer quotes at most, so that a long text gets no endless stream.
const QUOTED: usize = 40;

/// What one call costs in this demo's unit: a token is a word, which makes the figures easy to check by eye.
pub(super) fn tokens(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The answer's words with the spaces that follow them: joined again they are the answer, byte for byte.
pub(super) fn pieces(answer: &str) -> impl Iterator<Item = &str> {
    answer.split_inclusive(' ')
}

/// Cuts an answer to `limit` tokens. The second value says whether anything was cut.
pub(super) fn cut(answer: String, limit: Option<u64>) -> (String, bool) {
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    if tokens(&answer) <= limit {
        return (answer, false);
    }
    let kept: String = pieces(&answer).take(limit).collect();
    (kept.trim_end().to_owned(), true)
}

/// The assistant's answer. Single spaces only, so that [`pieces`] and [`tokens`] agree on its length.
pub(super) fn answer(message: &str) -> String {
    let lower = message.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).collect();
    let said = |any: &[&str]| any.iter().any(|wanted| words.contains(wanted));

    if words.is_empty() {
        "I am the Tidegate demo. Write me something and I will answer.".into()
    } else if said(&["hello", "hi", "hey"]) {
        "Hello! I am the Tidegate demo: a handful of rules, not a language model. What is on your mind?"
            .into()
    } else if lower.contains("who are you") || lower.contains("what are you") {
        "I am the demo app that comes with Tidegate. I follow a handful of rules, know no facts, and have no \
         protection of my own: all of that is the work of the gate in front of me."
            .into()
    } else if said(&["help", "limit", "limits"]) {
        "I set no limits at all. If there is a gate in front of me, it does: call often enough and it \
         answers in my place, with the reason and the time to wait."
            .into()
    } else if said(&["thanks", "thank", "bye", "goodbye"]) {
        "You are welcome. I will have forgotten all of this at once.".into()
    } else if let Some(rest) = after(&words, &["i", "am"]).or_else(|| after(&words, &["i'm"])) {
        format!("How long have you been {rest}?")
    } else if let Some(rest) = after(&words, &["i", "need"]).or_else(|| after(&words, &["i", "want"])) {
        format!("What would it mean to you to have {rest}?")
    } else if message.trim_end().ends_with('?') {
        format!("I follow rules and know no facts, so I cannot tell. You asked: {}", quoted(message))
    } else {
        format!("You said: {} Tell me more.", quoted(message))
    }
}

/// What follows `opener` in the message, seen from the other side ("my dog" becomes "your dog").
fn after(words: &[&str], opener: &[&str]) -> Option<String> {
    let at = words.windows(opener.len()).position(|window| window == opener)?;
    let rest = words.get(at + opener.len()..).filter(|rest| !rest.is_empty())?;
    let turned: Vec<&str> = rest
        .iter()
        .take(QUOTED)
        .map(|word| match *word {
            "i" | "me" => "you",
            "my" => "your",
            "mine" => "yours",
            "am" => "are",
            "you" => "me",
            "your" => "my",
            word => word,
        })
        .collect();
    Some(turned.join(" "))
}

/// The message as it came, markup and all: what may stand in it is the gate's business, not this app's.
fn quoted(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().take(QUOTED + 1).collect();
    match words.get(..QUOTED) {
        Some(kept) if words.len() > QUOTED => format!("\u{201c}{} \u{2026}\u{201d}", kept.join(" ")),
        _ => format!("\u{201c}{}\u{201d}", words.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newcomer must get an answer that fits, and be told what is answering.
    #[test]
    fn rules() {
        assert!(answer("Hello there").contains("not a language model"));
        assert!(answer("  ").starts_with("I am the Tidegate demo."));
        assert_eq!(answer("I am worried about my bill."), "How long have you been worried about your bill?");
        assert_eq!(answer("well, I need a holiday"), "What would it mean to you to have a holiday?");
        assert_eq!(answer("Dogs\n bark"), "You said: \u{201c}Dogs bark\u{201d} Tell me more.");
        assert!(answer("Why is the sky blue?").ends_with("\u{201c}Why is the sky blue?\u{201d}"));
        // "I am" with nothing after it, and "hi" inside another word, must not be taken for an opener.
        assert!(answer("So I am").starts_with("You said"));
        assert!(answer("This").starts_with("You said"));
    }

    /// The usage that a client reads must equal the pieces that it was streamed.
    #[test]
    fn pieces_are_the_tokens_and_the_whole_answer() {
        let long = "word ".repeat(500);
        for message in ["hello", "", "I am  here", "a\tb\r\nc", "<b>x</b>", "who are you", "limits?", &long] {
            let answer = answer(message);
            assert_eq!(pieces(&answer).count(), tokens(&answer), "{message:?}");
            assert_eq!(pieces(&answer).collect::<String>(), answer);
        }
        assert!(tokens(&answer(&long)) < 60);
    }

    /// A caller that caps the answer must not be charged for more.
    #[test]
    fn cut_to_a_limit() {
        assert_eq!(cut("one two three".into(), Some(2)), ("one two".into(), true));
        assert_eq!(cut("one two".into(), Some(2)), ("one two".into(), false));
        assert_eq!(cut("one two".into(), None), ("one two".into(), false));
    }
}
