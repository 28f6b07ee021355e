//! Bodies to compare on: chat shapes and wild ones, some as written, some mutated.

/// SplitMix64 (Steele, Lea, Flood 2014): a failing case is found again by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.below(from.len())]
    }
}

/// A valid body with few faults of our stricter kinds; mutation brings the others.
struct Writer<'r> {
    random: &'r mut Random,
    out: String,
}

impl Writer<'_> {
    fn space(&mut self) {
        let space = self.random.pick(&["", "", "", "", "", " ", "\n  ", "\t", "\r\n"]);
        self.out.push_str(space);
    }

    fn string(&mut self) {
        self.out.push('"');
        for _ in 0..self.random.below(6) {
            let piece = self.random.pick(&[
                "word ",
                "long enough for a word at a time",
                "é",
                "日本",
                "😀",
                r"\n",
                r#"\""#,
                r"\\",
                r"\/",
                r"\u0041",
                r"\u00e9",
                r"\uD83D\uDE00",
                r"\u0000",
                "\u{7f}",
                "<script>",
                "{",
                "]",
                ",",
            ]);
            self.out.push_str(piece);
        }
        self.out.push('"');
    }

    fn name(&mut self) {
        let name = self.random.pick(&[
            "message",
            "messages",
            "content",
            "text",
            "input",
            "system",
            "contents",
            "parts",
            "model",
            "stream",
            "max_tokens",
            "role",
            "type",
            r"m\u0065ssage",
            r"\u0074ext",
            r"conten\u0074",
            "a/b",
            "~",
            "0",
            "Message",
            "MESSAGE",
            "Messages",
            "Text",
            "CONTENT",
            "in\u{131}put",
            "\u{17f}y\u{17f}tem",
            r"max_to\u212aens",
        ]);
        match self.random.below(20) {
            0 => self.string(),
            1..=4 => {
                let number = self.random.below(60);
                self.out.push_str(&format!("\"k{number}\""));
            }
            _ => self.out.push_str(&format!("\"{name}\"")),
        }
    }

    fn value(&mut self, depth: usize) {
        self.space();
        match if depth == 0 { self.random.below(6) } else { self.random.below(16) } {
            0..=2 => self.string(),
            3 => {
                let number = self.random.pick(&[
                    "0",
                    "-0",
                    "12",
                    "-1.5",
                    "1E5",
                    "1e-7",
                    "123456789012345678901234567890",
                    "9e99",
                    "0.10",
                ]);
                self.out.push_str(number);
            }
            4 => self.out.push_str(["true", "false"][self.random.below(2)]),
            5 => self.out.push_str("null"),
            6..=10 => self.list('[', ']', depth, 4, |writer| writer.value(depth - 1)),
            _ => {
                let most = self.random.pick(&[&4, &4, &4, &14]);
                self.list('{', '}', depth, *most, |writer| {
                    writer.name();
                    writer.space();
                    writer.out.push(':');
                    writer.value(depth - 1);
                });
            }
        }
        self.space();
    }

    /// The shape that the rules are about, with anything in its fields.
    fn chat(&mut self) {
        self.out.push('{');
        let mut comma = "";
        for name in
            ["model", "messages", r"inp\u0075t", "message", "stream", "contents", "system", "a/b", "k"]
        {
            if self.random.below(3) == 0 {
                continue;
            }
            self.out.push_str(&format!("{comma}\"{name}\":"));
            comma = ",";
            match name {
                "messages" => self.list('[', ']', 3, 4, |writer| {
                    writer.out.push_str(r#"{"role":"user","content":"#);
                    writer.value(3);
                    writer.out.push('}');
                }),
                "contents" => self.list('[', ']', 3, 3, |writer| {
                    writer.out.push_str(r#"{"parts":"#);
                    writer.list('[', ']', 3, 3, |writer| {
                        writer.out.push_str(r#"{"text":"#);
                        writer.value(1);
                        writer.out.push('}');
                    });
                    writer.out.push('}');
                }),
                "a/b" => {
                    self.out.push_str(r#"{"~":"#);
                    self.value(1);
                    self.out.push('}');
                }
                _ => self.value(2),
            }
        }
        self.out.push('}');
    }

    fn list(&mut self, open: char, close: char, depth: usize, most: usize, item: impl Fn(&mut Self)) {
        self.out.push(open);
        self.space();
        for i in 0..self.random.below(if depth > 1 { most } else { 3 }) {
            if i > 0 {
                self.out.push(',');
                self.space();
            }
            item(self);
        }
        self.out.push(close);
    }
}

/// The body that belongs to `seed`.
pub fn body(seed: u64) -> Vec<u8> {
    let random = &mut Random(seed);
    let (chat, depth) = (random.below(2) == 0, 1 + random.below(6));
    let mut writer = Writer { random: &mut *random, out: String::new() };
    if chat {
        writer.chat()
    } else {
        writer.value(depth)
    }
    let mut body = writer.out.into_bytes();
    // A third stays valid, or only the accepting half would be compared.
    for _ in 0..random.below(3) {
        mutate(&mut body, random);
    }
    body
}

fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    const TOKENS: [&[u8]; 34] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"0",
        b"-",
        b".",
        b"e",
        b" ",
        b"\n",
        b"\0",
        b"\x1f",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\\u",
        b"\\ud83d",
        b"\\ude00",
        b"\\ud83d\\ude00",
        b"null",
        b"tru",
        b"\"text\":",
        b"\"message\":\"x\",",
        b"[[[[[[[[",
        b"{\"a\":{\"a\":",
        b"00",
        b"1e400",
        b"/**/",
        b"\x0c",
    ];
    let at = random.below(body.len() + 1);
    let end = (at + random.below(12)).min(body.len());
    match random.below(7) {
        0 => body.truncate(at),
        1 => drop(body.drain(at..end)),
        2 => {
            let copy = body[at..end].to_vec();
            let to = random.below(body.len() + 1);
            body.splice(to..to, copy).for_each(drop);
        }
        3 if at < body.len() => body[at] ^= 1 << random.below(8),
        4 if at < body.len() => body[at] = random.next() as u8,
        _ => {
            let token = random.pick(&TOKENS);
            body.splice(at..at, token.iter().copied()).for_each(drop);
        }
    }
}
