use std::borrow::Cow;
use std::time::Instant;

use proptest::prelude::*;

use super::{KeyNames, MARK, redact, redact_keys, without_credentials};

/// Keys in the shapes of their issuers, none of them real.
const KEYS: [&str; 17] = [
    "sk-proj-Ab3dEf6hIj9kLmN0pQrStUvWxYz12345",
    "sk-ant-api03-Zz9yXw8vUt7sRq6pOn5mLk4jIh3gFe2dCb1a-AAAAAA",
    "sk-lowercaseonlywithoutdigits",
    "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "gsk_abcdefghijklmnop",
    "xai-0123456789abcdef",
    "hf_abcdefghijklmnopqrst",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXBhcnQ",
    "9f86d081884c7d659a2feaa0c55ad015",
    "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
    "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE0",
    "kQ9/3xZp+7Lm2vT8/wYb1cR4d+E6sHuN0aJg5fXiKoE=",
    "xoxb-123456789012-abcdefghij",
    "0d1e2f3a4b5c6d7e8f9012a3b4c5d6e7f8091a2b",
    "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
];

/// A leaked key costs its owner money: wherever it stands in a text, it has to go.
#[test]
fn keys_vanish_wherever_they_stand() {
    for key in KEYS {
        for text in [
            key.to_owned(),
            format!("Incorrect API key provided: {key}. See the docs."),
            format!("{{\"error\":\"{key}\"}}"),
            format!("agent/1.0 ({key}) more"),
            format!("κλειδί {key}κλειδί"),
            format!("a={key}&b={key}"),
        ] {
            let clean = redact(&text);
            assert!(!clean.contains(key) && clean.contains(MARK), "{text} → {clean}");
            for part in key.split(['.', '/', '+']).filter(|part| part.len() > 8) {
                assert!(!clean.contains(part), "{text} → {clean}");
            }
        }
    }
    assert_eq!(redact("/v1/files/sk-abcdef0123456789/x"), "/v1/files/[redacted]/x");
}

/// A credential needs no telling shape when its scheme or its field's name tells.
#[test]
fn credentials_go_by_their_scheme_and_name() {
    for (text, clean) in [
        ("Authorization: Bearer hunter2", "Authorization: [redacted] [redacted]"),
        ("got bearer abc.def, sorry", "got bearer [redacted], sorry"),
        ("q=Bearer%20hunter2", "q=Bearer%20[redacted]"),
        ("BASIC dXNlcjpwYXNz", "BASIC [redacted]"),
        ("xi-api-key: short", "xi-api-key: [redacted]"),
        (r#"{"api_key":"short","n":1}"#, r#"{"api_key":"[redacted]","n":1}"#),
        (r#"{\"client_secret\": \"short\"}"#, r#"{\"client_secret\": \"[redacted]\"}"#),
        ("password=hunter2 user=bob", "password=[redacted] user=bob"),
        ("Set-Cookie: sid=abc; Path=/", "Set-Cookie: [redacted]; Path=/"),
    ] {
        assert_eq!(redact(text), clean);
    }
}

/// A log in which ordinary text is blacked out can't be worked with.
#[test]
fn ordinary_text_is_borrowed() {
    for text in [
        "",
        "/",
        "/api/v1/chat/completions",
        "/api/v1/chats/550e8400-e29b-41d4-a716-446655440000/messages",
        "/chat-550e8400-e29b-41d4-a716-446655440000",
        "/blog/how-to-write-a-really-long-title-about-risk-assessment-2024-07-18",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "OpenAI/Python 1.99.9",
        "claude-3-5-sonnet-20241022",
        "anthropic.claude-3-5-sonnet-20241022-v2:0",
        "IMG_20240101_123456_HDR_edited_final_version2.jpeg",
        "max_tokens: 5000 is more than 4096",
        "Send the admin token as a bearer token.",
        "/messages/0/content is longer than 4000 characters (limits.text.chat)",
        "127.0.0.1:8080",
        "sk-SK,sk;q=0.9",
        "日本語のテキスト: 東京",
        "the upstream broke off after 12345678901234567890123456789012345 bytes",
    ] {
        assert!(matches!(redact(text), Cow::Borrowed(_)), "{text} → {}", redact(text));
    }
}

/// Request ids look like secrets; without them no line can be matched with another.
#[test]
fn request_ids_stay_and_keys_in_them_go() {
    assert_eq!(redact_keys("9f86d081884c7d659a2feaa0c55ad015"), "9f86d081884c7d659a2feaa0c55ad015");
    assert_eq!(redact_keys("sk-canary-0123456789"), MARK);
}

fn redact_query(query: &str) -> Cow<'_, str> {
    super::redact_query(query, KeyNames::default())
}

fn redact_url(url: &str) -> Cow<'_, str> {
    super::redact_url(url, KeyNames::default())
}

/// A parameter that the operator calls a key's place must not be logged because its name sounds harmless.
#[test]
fn parameters_that_are_said_to_carry_keys_are_masked() {
    let names = ["customer-id".into(), "_".into(), "kunde".into()];
    let keys = KeyNames::of(&names);
    for (query, clean) in [
        ("customer-id=a1&page=2", "customer-id=[redacted]&page=2"),
        ("Customer%2DID=a1&customer_id=b", "Customer%2DID=[redacted]&customer_id=[redacted]"),
        ("_=a1&-=b&%5f=c", "_=[redacted]&-=b&%5f=c"),
        ("kunden=a1&x=kunde", "kunden=a1&x=kunde"),
    ] {
        assert_eq!(super::redact_query(query, keys), clean);
    }
    assert_eq!(super::redact_url("https://a.example/?KUNDE=s", keys), "https://a.example/?KUNDE=[redacted]");
}

/// Gemini takes its key, and OAuth its code, from the query: it is the likeliest place for a secret in an access log.
#[test]
fn queries_are_masked_by_parameter() {
    for (query, clean) in [
        ("key=abc&alt=sse", "key=[redacted]&alt=sse"),
        ("a=1&API_KEY=abc;x-api-key=d", "a=1&API_KEY=[redacted];x-api-key=[redacted]"),
        ("k%65y=abc", "k%65y=[redacted]"),
        (
            "access_token=a&code=b&state=c&sig=d&auth=e",
            "access_token=[redacted]&code=[redacted]&state=[redacted]&sig=[redacted]&auth=[redacted]",
        ),
        ("X-Amz-Signature=ab&X-Amz-Date=2024", "X-Amz-Signature=[redacted]&X-Amz-Date=2024"),
        ("user[password]=x", "user[password]=[redacted]"),
        ("q=sk-0123456789abcdef", "q=[redacted]"),
        ("key=&token", "key=&token"),
        ("page=2&author=me&max_tokens=5&zipcode=1", "page=2&author=me&max_tokens=5&zipcode=1"),
    ] {
        assert_eq!(redact_query(query), clean);
    }
    assert_eq!(redact_url("https://a.example/p?key=s#f"), "https://a.example/p?key=[redacted]");
    assert!(matches!(redact_url("https://a.example/p?page=2"), Cow::Borrowed(_)));
    assert!(matches!(redact_url("https://a.example/p/@me?to=a@b"), Cow::Borrowed(_)));
}

/// Browsers take `user:password@` out of a Referer; scripts that call the app do not.
#[test]
fn urls_lose_their_passwords() {
    for (url, clean) in [
        (
            "https://u:hunter2CanaryX@ex.com/?token=s3cret&p=2",
            "https://[redacted]@ex.com/?token=[redacted]&p=2",
        ),
        ("https://u:a@b,c@ex.com", "https://[redacted]@ex.com"),
        ("http://a,redis://:one@b:1,redis://:two@c", "http://a,redis://[redacted]@b:1,redis://[redacted]@c"),
        (
            "https://a.example/?next=https://u:p@b.example/",
            "https://a.example/?next=https://[redacted]@b.example/",
        ),
        ("://@", "://[redacted]@"),
        ("https://ü:ö@é", "https://[redacted]@é"),
    ] {
        assert_eq!(redact_url(url), clean);
    }
    assert_eq!(without_credentials("see http://u@h and mail a@b", "-"), "see http://-@h and mail a@b");
}

/// Text made to be searched over and over would stop the gate: eight times the text may cost eight times the time,
/// where a search that starts again at each word costs sixty-four times.
#[test]
fn hostile_text_costs_no_more_than_its_length() {
    let cost = |unit: &str, bytes: usize| {
        let text = unit.repeat(bytes / unit.len());
        let once = || {
            let start = Instant::now();
            let _ = redact_query(&text);
            start.elapsed()
        };
        (0..4).map(|_| once()).min().unwrap()
    };
    for unit in [
        "bearer",
        "bearer ",
        "bearer=",
        "bearer=token=",
        "token=",
        "token:",
        "aaaaaaaaaaaa/",
        "eyJaaaaaaaaa.",
        "eyJaaaaaaaaa/",
        "sk-aaaaaaaaaaaa-",
        "a1",
        "=",
        ":",
        "\"",
        "a:\"",
        "%20",
        "b",
        "Aa1/",
        "Aa1Bb2Cc3Dd4/",
        "550e8400-e29b-41d4-a716-446655440000/",
        "k=v&",
    ] {
        // A busy machine can spoil many tries; what is quadratic fails them all.
        let linear = (0..20).any(|_| cost(unit, 16_000) < cost(unit, 2_000) * 30);
        assert!(linear, "{unit:?}");
    }
}

proptest! {
    /// Whatever a client sends, the text is cut at character boundaries and loses only what it must.
    #[test]
    fn any_text_survives(text in "\\PC{0,80}") {
        let clean = redact(&text);
        prop_assert!(clean == text || clean.contains(MARK));
        let _ = redact_query(&text);
        let _ = redact_url(&text);
    }

    /// A key must not slip through because of what stands around it.
    #[test]
    fn a_key_goes_in_any_company(before in "[ -~]{0,40}", key in "[a-zA-Z0-9]{20,60}", after in "[ -~]{0,40}") {
        let key = format!("sk-{key}");
        // A letter before the prefix makes it part of a word ("task-").
        let text = format!("{before}/{key} {after}");
        prop_assert!(!redact(&text).contains(&key));
    }
}
