use futures_util::stream;
use proptest::prelude::*;

use super::*;

/// What a body holds, by one parser or another: each part's file name and content.
type Parts = Vec<(Option<Vec<u8>>, Vec<u8>)>;

const TYPE: &[u8] = b"multipart/form-data; boundary=b7";

/// Reads a body in pieces of these lengths, over and over; the last is what remains.
fn read(content_type: &[u8], body: &[u8], pieces: &[usize]) -> Result<Parts, Fault> {
    let mut parser = Parser::new(content_type)?;
    let (mut parts, mut open, mut places) = (Parts::new(), false, Vec::new());
    let mut rest = body;
    let mut lengths = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |length| (*length).min(rest.len()));
        let (piece, after) = rest.split_at(length);
        parser.feed::<Fault>(piece, |event| {
            match event {
                Event::Part(part, at) => {
                    places.push(at as usize);
                    assert!(!std::mem::replace(&mut open, true), "a part in a part");
                    parts.push((part.file_name.map(<[u8]>::to_vec), Vec::new()));
                }
                Event::Content(bytes) => parts.last_mut().expect("in a part").1.extend_from_slice(bytes),
                Event::End => assert!(std::mem::replace(&mut open, false), "an end without a part"),
            }
            Ok(())
        })?;
        rest = after;
    }
    parser.end()?;
    // An edit lands where the content is said to be.
    for ((_, content), at) in parts.iter().zip(places) {
        assert_eq!(body.get(at..at + content.len()), Some(&content[..]));
    }
    Ok(parts)
}

fn fault(body: &str) -> Option<Fault> {
    read(TYPE, body.as_bytes(), &[]).err()
}

const FIELD: &str = "--b7\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
const END: &str = "\r\n--b7--\r\n";

/// What browsers, curl and HTTP libraries send must be read.
#[test]
fn honest_bodies_are_read() {
    let file = "--b7\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\u{fc}.txt\"\r\nContent-Type: text/plain\r\n\
        Content-Transfer-Encoding: binary\r\nContent-Length: 5\r\n\r\nhe\r\no\r\n";
    let body = format!("{file}{FIELD}\r\n--b7--");
    let parts = read(TYPE, body.as_bytes(), &[]).expect("reads");
    assert_eq!(parts, [(Some("\u{fc}.txt".into()), b"he\r\no".to_vec()), (None, Vec::new())]);
    assert_eq!(read(TYPE, b"--b7--\r\n", &[]), Ok(Parts::new()));
    let related = b"multipart/related; boundary=\"b7\"; type=\"application/json\"";
    assert!(read(related, b"--b7\r\nContent-Type: application/json\r\n\r\n{}\r\n--b7--", &[]).is_ok());
    let webkit = b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let body = b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n-----\
        -WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n";
    assert_eq!(read(webkit, body, &[]), Ok(vec![(None, Vec::new())]));
}

/// Each of these is a different set of parts to different readers: one of them would be past the guard.
#[test]
fn ambiguous_bodies_are_refused() {
    let header = |lines: &str| format!("--b7\r\n{lines}\r\n\r\nx{END}");
    let disposition = "Content-Disposition: form-data; name=\"a\"";
    for (body, wanted) in [
        (format!("preamble\r\n{FIELD}x{END}"), Fault::Preamble),
        (format!("\r\n{FIELD}x{END}"), Fault::Preamble),
        (format!("{FIELD}x{END}more"), Fault::Epilogue),
        (format!("{FIELD}x{END}\r\n"), Fault::Epilogue),
        (format!("{FIELD}x\n--b7--\r\n"), Fault::BareLineFeed),
        (format!("{FIELD}x\r\n--b7--\n"), Fault::Epilogue),
        (format!("{FIELD}x\r\n--b7x\r\n"), Fault::Delimiter),
        (format!("{FIELD}x\r\n--b7 \r\n"), Fault::Delimiter),
        (format!("{FIELD}x\r\n--b7-x"), Fault::Delimiter),
        (format!("{FIELD}x\r\n--b7\n"), Fault::BareLineFeed),
        (format!("{FIELD}--b7--\r\n"), Fault::NoContent),
        (format!("{FIELD}x"), Fault::Unfinished),
        (format!("{FIELD}x\r\n--b7"), Fault::Unfinished),
        (String::new(), Fault::Unfinished),
        ("--b7\r\n\r\nx\r\n--b7--".into(), Fault::Header),
        (format!("--b7\n{disposition}\r\n\r\nx{END}"), Fault::BareLineFeed),
        (format!("--b7\r\n{disposition}\n\nx{END}"), Fault::BareLineFeed),
        (header("Content-Type: text/plain"), Fault::Disposition),
        (header("Content-Disposition: form-data"), Fault::Disposition),
        (header("Content-Disposition: attachment; name=\"a\""), Fault::Disposition),
        (header(&format!("{disposition}; filename=\"a\"; FileName=\"b\"")), Fault::Disposition),
        (header(&format!("{disposition}; filename*0=\"a\"; filename*1=\"b\"")), Fault::Disposition),
        (header("Content-Disposition: form-data; name=\"a\\\"b\""), Fault::Disposition),
        (header(&format!("{disposition}\r\ncontent-disposition: form-data; name=\"b\"")), Fault::Header),
        (header(&format!("{disposition}\r\nContent-Type: a/b\r\nContent-Type: c/d")), Fault::Header),
        (header(&format!("{disposition};\r\n filename=\"a\"")), Fault::Disposition),
        (header(&format!("{disposition}\r\n filename=\"a\"")), Fault::Header),
        (header(&format!("{disposition}\r\nX : y")), Fault::Header),
        (header(&format!("{disposition}\r\nX: \0")), Fault::Header),
        (header(&format!("{disposition}\r\nX: a\rb")), Fault::Header),
        (header(&format!("{disposition}\r\nContent-Type: multipart/mixed; boundary=c")), Fault::Nested),
        (header(&format!("{disposition}\r\nContent-Transfer-Encoding: base64")), Fault::Nested),
        (header(&format!("{disposition}\r\nContent-Encoding: gzip")), Fault::Nested),
        (header(&format!("{disposition}\r\nX: {}", "x".repeat(HEADER))), Fault::HeaderTooLong),
        (format!("--b7\r\nX: {}", "x".repeat(HEADER)), Fault::HeaderTooLong),
    ] {
        assert_eq!(fault(&body), Some(wanted), "{body:?}");
    }
}

/// Readers that can't agree on the boundary can't agree on anything.
#[test]
fn boundaries_are_sound_or_refused() {
    for parameters in [
        "",
        "; boundary=",
        "; boundary=\"\"",
        "; boundary=a; boundary=b",
        "; boundary=a; BOUNDARY=a",
        "; boundary=\"a ",
        "; boundary=\"a \"",
        "; boundary=\"a\\b\"",
        "; boundary=\"a\u{fc}\"",
        "; boundary=a b",
        "; boundary=a, multipart/form-data; boundary=b",
        &format!("; boundary={}", "a".repeat(71)),
    ] {
        let parser = Parser::new(format!("multipart/form-data{parameters}").as_bytes());
        assert_eq!(parser.err(), Some(Fault::Boundary), "{parameters}");
    }
    assert!(Parser::new(format!("multipart/form-data; boundary=\"{}\"", "a".repeat(70)).as_bytes()).is_ok());
}

/// What the crate `multer` makes of a body.
fn by_multer(body: &[u8]) -> Option<Parts> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let body = bytes::Bytes::copy_from_slice(body);
        let mut form = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), "b7");
        let mut parts = Parts::new();
        while let Some(field) = form.next_field().await.ok()? {
            let name = field.file_name().map(|name| name.as_bytes().to_vec());
            parts.push((name, field.bytes().await.ok()?.to_vec()));
        }
        Some(parts)
    })
}

/// Content in which delimiters almost stand.
fn content() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] =
        &["\r\n", "\r", "\n", "-", "--b", "--b7", "\r\n--b", "\r\n--", "\0\u{ff}", "words"];
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..12);
    let pieces = pieces.prop_map(|pieces| pieces.concat().into_bytes());
    pieces.prop_filter("holds a delimiter", |content| {
        let framed = [b"\r\n", &content[..]].concat();
        !framed.windows(5).any(|window| window == b"\n--b7")
    })
}

fn honest() -> impl Strategy<Value = (Parts, Vec<u8>)> {
    let part = (prop::option::of("[a-z\u{e9} ]{1,8}\\.txt".prop_map(String::into_bytes)), content());
    prop::collection::vec(part, 0..4).prop_map(|parts| {
        let mut body = Vec::new();
        for (name, content) in &parts {
            body.extend_from_slice(b"--b7\r\nContent-Disposition: form-data; name=\"a\"");
            if let Some(name) = name {
                body.extend([&b"; filename=\""[..], name, b"\"\r\nContent-Type: text/plain"].concat());
            }
            body.extend([b"\r\n\r\n", &content[..], b"\r\n"].concat());
        }
        body.extend_from_slice(b"--b7--\r\n");
        (parts, body)
    })
}

/// Bodies of the pieces that bodies are made of, in any order.
fn scrambled() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "--b7\r\n",
        "--b7\r\n",
        "\r\n--b7\r\n",
        "\r\n--b7--",
        "\r\n--b7--\r\n",
        "Content-Disposition: form-data; name=\"a\"\r\n",
        "Content-Disposition: form-data; name=\"a\"\r\n",
        "Content-Disposition: form-data; name=\"a\"; filename=\"f\"\r\n",
        "Content-Type: text/plain\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "--",
        "x",
        " ",
        "\0",
    ];
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..14);
    pieces.prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("MULTIPART_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
    ))]

    /// An honest upload must be read as it was meant, however the network cuts it, and as other parsers read it.
    #[test]
    fn honest_bodies_are_read_as_they_are_meant(
        (parts, body) in honest(), pieces in prop::collection::vec(1usize..9, 1..4)
    ) {
        prop_assert_eq!(read(TYPE, &body, &pieces), Ok(parts.clone()));
        prop_assert_eq!(by_multer(&body), Some(parts));
    }

    /// A body that is refused whole must not pass in pieces, nor the other way round.
    #[test]
    fn pieces_change_nothing(body in scrambled(), pieces in prop::collection::vec(1usize..9, 1..4)) {
        prop_assert_eq!(read(TYPE, &body, &pieces), read(TYPE, &body, &[]));
    }

    /// What passes must be the same to the parser behind the gate.
    #[test]
    fn what_passes_is_read_alike(body in scrambled()) {
        if let Ok(parts) = read(TYPE, &body, &[]) {
            prop_assert_eq!(by_multer(&body), Some(parts));
        }
    }

    /// Whatever comes, nothing may panic.
    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..60), kind in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = (read(TYPE, &[b"--b7\r\n", &body[..]].concat(), &[7]), Parser::new(&kind));
    }
}
