//! What the JSON walk costs: usual chat bodies, then shapes that are the worst for it. The target is 300 MB/s
//! on the first two.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::guard::json::{Caps, FieldRules, Rule, Scratch, Value, scan};

const TEXT: &str =
    "Could you look at the attached summary and tell me which of the three offers is cheaper? ";
const PARAGRAPH: &str =
    r#"First line of an answer.\n\nThen \"quoted\" text, a caf\u00e9 and a list:\n- one\n- two\n"#;
const CHINESE: &str = "请帮我看一下附件里的摘要，然后告诉我三个方案里哪一个更便宜。";

/// A chat completion of about `size` bytes, with messages of `length` bytes each.
fn chat(text: &str, length: usize, size: usize) -> String {
    let content = text.repeat(length.div_ceil(text.len()));
    let mut body =
        String::from(r#"{"model": "gpt-4o-mini", "stream": true, "temperature": 0.7, "messages": ["#);
    for role in ["system", "user", "assistant"].iter().cycle() {
        body.push_str(&format!(r#"{{"role": "{role}", "content": "{content}"}}"#));
        if body.len() + content.len() / 2 >= size {
            break;
        }
        body.push_str(", ");
    }
    body.push_str(r#"], "max_tokens": 512, "sessionId": "b1946ac92492d234"}"#);
    body
}

fn distinct_keys(size: usize) -> String {
    let members: Vec<String> = (0..size / 12).map(|i| format!("\"{i:07}\":1")).collect();
    format!("{{{}}}", members.join(","))
}

fn bench(c: &mut Criterion) {
    let text = [
        "/messages/*/content",
        "/message",
        "/chatInput",
        "/input",
        "/prompt",
        "/system",
        "/contents/*/parts/*/text",
    ];
    let value = ["/model", "/stream", "/max_tokens", "/sessionId"];
    let rules = text.iter().map(|p| Rule::text(p, 1)).chain(value.iter().map(|p| Rule::value(p, 2)));
    let rules = FieldRules::compile(rules).expect("the patterns above are valid");
    let caps = Caps { depth: 64, members: 1_000_000 };
    let mut scratch = Scratch::default();
    let mut group = c.benchmark_group("scanner");
    for (name, body) in [
        ("chat 1.2 KB", chat(TEXT, 180, 1_200)),
        ("chat 64 KB", chat(TEXT, 1_000, 64 << 10)),
        ("chat 64 KB, escapes", chat(PARAGRAPH, 1_000, 64 << 10)),
        ("chat 64 KB, Chinese", chat(CHINESE, 1_000, 64 << 10)),
        ("chat 64 KB, short messages", chat("yes ", 4, 64 << 10)),
        ("picture 1 MiB", chat("iVBORw0KGgoAAAANSUhEUgAA", 1 << 20, 1 << 20)),
        ("numbers 1 MiB", format!("[{}0]", "-12.5,".repeat((1 << 20) / 6))),
        ("distinct keys 1 MiB", distinct_keys(1 << 20)),
    ] {
        group.throughput(Throughput::BytesDecimal(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut chars = 0;
                let outcome = scan(body.as_bytes(), &caps, &rules, &mut scratch, &mut |found| {
                    if let Value::Text(text) = found.value {
                        chars += text.chars();
                    }
                });
                outcome.expect("the bodies above are valid");
                black_box(chars)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
