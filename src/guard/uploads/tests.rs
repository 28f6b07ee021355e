use proptest::prelude::*;

use super::super::testing::Request;
use super::*;
use crate::config::units::ByteSize;
use crate::config::{Named, Toggle};
use crate::guard::body::JsonConfig;
use crate::guard::json;
use crate::guard::sanitize::{self, Action, Sink, Target};
use crate::guard::text::{self, ChatConfig, KindConfig, ValueFields};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

fn texts() -> FormTexts {
    texts_of(40)
}

/// Texts of forms, as a gate looks at them that knows a `message` of `max` characters.
fn texts_of(max: u64) -> FormTexts {
    let none = KindConfig { max: 10_000, fields: Vec::new() };
    let chat = ChatConfig { max, fields: vec!["/message".to_owned()], on_chats: Vec::new() };
    let text = text::Config { chat, model: none.clone(), speech: none };
    let target = Target { sink: Sink::Html, action: Action::Sanitize };
    let sanitize = sanitize::Config {
        chat: target,
        model: target,
        speech: target,
        path: target,
        fields: Named::default(),
    };
    let (json, session) = (JsonConfig { depth: 8, members: 99 }, ["/session".to_owned()]);
    let values = ValueFields { session: &session, ..ValueFields::default() };
    let guard = BodyGuard::build(&json, &text, Some(&sanitize), values, Observed::default());
    FormTexts { guard: Arc::new(guard.expect("a guard")), api: None, cap: 1000 }
}

const STARTS: &[&[u8]] = &[PNG, b"<html>", b"hello"];

fn uploads(part: u64, parts: u32) -> Arc<Uploads> {
    let types = Toggle::On(vec![Kind::Png, Kind::Txt, Kind::Json]);
    Arc::new(Uploads::build(&Config { part: ByteSize(part), parts, types }).expect("builds"))
}

fn begin(method: Method, path: &str, content_type: &str) -> Result<Upload, Refusal> {
    let mut request = Request::new(method).with("content-type", content_type);
    request.path = path.into();
    uploads(10_000, 3).begin(&request.head(), texts())
}

fn verdict(mut upload: Upload, body: &[u8], piece: usize) -> Result<(), (Reason, String)> {
    let fed = body.chunks(piece).try_for_each(|chunk| upload.feed(chunk)).and_then(|()| upload.end());
    fed.map_err(|refusal| (refusal.reason, refusal.detail.into_owned()))
}

fn form(body: &[u8]) -> Result<(), Reason> {
    let upload = begin(Method::POST, "/upload", "multipart/form-data; boundary=b7").expect("a sound head");
    verdict(upload, body, body.len().max(1)).map_err(|(reason, _)| reason)
}

/// One part with these parameters behind the name of its field, and these lines behind its disposition.
fn part(parameters: &str, lines: &str, content: &[u8]) -> Vec<u8> {
    let header = format!("--b7\r\nContent-Disposition: form-data; name=\"f\"{parameters}\r\n{lines}\r\n");
    [header.as_bytes(), content, b"\r\n"].concat()
}

fn whole(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], b"--b7--\r\n"].concat()
}

/// A picture with a caption is what chats are sent.
#[test]
fn honest_forms_pass() {
    let picture = part("; filename=\"cat.png\"", "Content-Type: image/png\r\n", PNG);
    let caption = part("", "", b"<b>look</b> \x89");
    let none = part("; filename=\"\"", "Content-Type: application/octet-stream\r\n", b"");
    assert_eq!(form(&whole(&[picture, caption, none])), Ok(()));
    let blob = part("; filename=\"blob\"", "Content-Type: image/png\r\n", PNG);
    let both = part("; filename=\"a b.png\"; filename*=utf-8''a%20b.png", "", PNG);
    let json = part("", "Content-Type: application/json\r\n", br#"{"a":1}"#);
    assert_eq!(form(&whole(&[blob, both, json])), Ok(()));
}

/// Each rule has to hold for each file of a form, and says which part broke it.
#[test]
fn rules_hold_for_every_part() {
    let fine = || part("; filename=\"a.png\"", "", PNG);
    for (bad, reason) in [
        (part("; filename=\"a.exe\"", "", PNG), Reason::UploadTypeDenied),
        (part("; filename=\"a.png\"", "", b"<script>"), Reason::UploadTypeDenied),
        (part("", "Content-Type: image/png\r\n", b"\x7fELF"), Reason::UploadTypeDenied),
        (part("; filename=\"\"", "", b"MZ\x90\0"), Reason::UploadTypeDenied),
        (part("; filename=\"../a.png\"", "", PNG), Reason::UploadNameDenied),
        (part("; filename=\"a\\\"b.png\"", "", PNG), Reason::UploadNameDenied),
        (part("; filename=\"\u{202e}gnp.png\"", "", PNG), Reason::UploadNameDenied),
        (part("; filename=\"a.png\"; filename*=utf-8''b.png", "", PNG), Reason::UploadNameDenied),
        (part("; filename*=utf-8''..%2fa.png", "", PNG), Reason::UploadNameDenied),
        (part("; filename=\"a.png\"", "", &[PNG, &[0; 10_000]].concat()), Reason::UploadTooLarge),
        (part("", "", &[b'x'; 10_001]), Reason::UploadTooLarge),
        (part("; filename=\"a.png\"", "Content-Type: multipart/mixed\r\n", PNG), Reason::MalformedUpload),
    ] {
        assert_eq!(
            form(&whole(&[fine(), bad.clone()])),
            Err(reason),
            "{:?}",
            String::from_utf8_lossy(&bad[..80.min(bad.len())])
        );
    }
    assert_eq!(form(&whole(&[fine(), fine(), fine()])), Ok(()));
    assert_eq!(form(&whole(&[fine(), fine(), fine(), fine()])), Err(Reason::UploadTooLarge));
    assert_eq!(form(&fine()), Err(Reason::MalformedUpload));
    let upload = begin(Method::POST, "/", "multipart/form-data; boundary=b7").expect("sound");
    let (_, detail) =
        verdict(upload, &whole(&[fine(), part("; filename=\"a/../b\"", "", PNG)]), 7).expect_err("odd");
    assert_eq!(detail, "The file name in part 2 of the upload leaves its directory.");
}

/// .NET writes a name that is not ASCII twice, each in its own code.
#[test]
fn names_from_dotnet_are_read() {
    let named = |parameters: &str| form(&whole(&[part(parameters, "Content-Type: image/png\r\n", PNG)]));
    for parameters in [
        "; filename=\"=?utf-8?B?w7wucG5n?=\"; filename*=utf-8''%C3%BC.png",
        "; filename=\"=?utf-8?B?w7wucG5n?=\"",
    ] {
        assert_eq!(named(parameters), Ok(()), "{parameters}");
    }
    for (parameters, reason) in [
        ("; filename=\"=?utf-8?B?w7wucG5n?=\"; filename*=utf-8''a.png", Reason::UploadNameDenied),
        ("; filename=\"=?utf-8?B?Li4vYS5wbmc=?=\"", Reason::UploadNameDenied),
        ("; filename=\"=?utf-8?B?YS5leGU=?=\"", Reason::UploadTypeDenied),
    ] {
        assert_eq!(named(parameters), Err(reason), "{parameters}");
    }
}

/// The edges of each rule, where one app sees another file than the other, or than a person does.
#[test]
fn edges_of_names_and_types() {
    let named = |name: &str, lines: &str, content: &[u8]| {
        form(&whole(&[part(&format!("; filename=\"{name}\""), lines, content)]))
    };
    let gif = b"GIF89a=1;/*\0<script src=//x></script>*/";
    for (name, lines, content, wanted) in [
        ("a.txt", "", &b""[..], Ok(())),
        ("a.png", "Content-Type: image/png\r\n", b"", Ok(())),
        ("a.exe", "", b"", Err(Reason::UploadTypeDenied)),
        ("a.png", "", PNG, Ok(())),
        ("blob", "", PNG, Ok(())),
        ("blob", "", b"\x7fELF\x02\x01", Err(Reason::UploadTypeDenied)),
        ("a.PNG", "Content-Type: IMAGE/PNG; q=1\r\n", PNG, Ok(())),
        ("a.jpg.png", "", PNG, Ok(())),
        ("a.png.php", "", PNG, Err(Reason::UploadTypeDenied)),
        ("a.php.png", "", PNG, Err(Reason::UploadNameDenied)),
        ("a.png.", "", PNG, Err(Reason::UploadNameDenied)),
        ("a.png ", "", PNG, Err(Reason::UploadNameDenied)),
        ("a.php%20", "", PNG, Err(Reason::UploadNameDenied)),
        ("a.php%00.png", "", PNG, Err(Reason::UploadNameDenied)),
        ("a.php\0.png", "", PNG, Err(Reason::MalformedUpload)),
        ("a.png", "", gif, Err(Reason::UploadTypeDenied)),
        ("a.txt", "Content-Type: text/plain\r\n", gif, Err(Reason::UploadTypeDenied)),
        ("a.png", "Content-Type: text/html\r\n", PNG, Err(Reason::UploadTypeDenied)),
        ("a.png", "Content-Type: \r\n", PNG, Ok(())),
        ("a", "", b"words", Ok(())),
        ("a.svg", "Content-Type: image/svg+xml\r\n", b"<svg/>", Err(Reason::UploadTypeDenied)),
    ] {
        assert_eq!(named(name, lines, content), wanted, "{name:?} {lines:?}");
    }
    let raw = |path, content_type, body: &[u8]| {
        verdict(begin(Method::PUT, path, content_type).expect("no form"), body, 7)
            .map_err(|(reason, _)| reason)
    };
    for (path, content_type, body, wanted) in [
        ("/a.png", "image/png", &b""[..], Ok(())),
        ("/a.png", "", PNG, Ok(())),
        ("/a.php.png", "", PNG, Ok(())),
        ("/a.png", "image/png", gif, Err(Reason::UploadTypeDenied)),
        ("/a", "application/octet-stream", gif, Err(Reason::UploadTypeDenied)),
        ("/a.png", "text/html", PNG, Err(Reason::UploadTypeDenied)),
        ("/a", "", b"", Ok(())),
    ] {
        assert_eq!(raw(path, content_type, body), wanted, "{path} {content_type}");
    }
}

/// A head that names no boundary, or two types, must not reach an app that guesses.
#[test]
fn unsound_heads_are_refused() {
    for content_type in
        ["multipart/form-data", "multipart/mixed; boundary=a; boundary=b", " Multipart/X; boundary="]
    {
        let refusal = begin(Method::POST, "/", content_type).expect_err("unsound");
        assert_eq!(refusal.reason, Reason::MalformedUpload, "{content_type}");
    }
    let twice = Request::new(Method::POST)
        .with("content-type", "text/plain")
        .with("content-type", "multipart/form-data; boundary=b7");
    assert!(uploads(1, 1).begin(&twice.head(), texts()).is_err());
}

/// A file that is a body by itself is a file, by what it says or by what it holds; other bodies are left alone.
#[test]
fn files_that_are_bodies() {
    let raw = |method, path, content_type, body: &[u8], piece| {
        let upload = begin(method, path, content_type).expect("no form");
        verdict(upload, body, piece).map_err(|(reason, _)| reason)
    };
    let large = [PNG, &[0; 10_000]].concat();
    for piece in [1, 5000, 100_000] {
        for (content_type, body, wanted) in [
            ("image/png", PNG, Ok(())),
            ("application/octet-stream", PNG, Ok(())),
            ("image/png", b"<html>", Err(Reason::UploadTypeDenied)),
            ("image/jpeg", b"\xff\xd8\xff\xe0", Err(Reason::UploadTypeDenied)),
            ("application/octet-stream", b"\xff\xd8\xff\xe0", Err(Reason::UploadTypeDenied)),
            ("application/octet-stream", b"\x7fELF\0", Err(Reason::UploadTypeDenied)),
            ("text/plain", PNG, Err(Reason::UploadTypeDenied)),
            ("image/png", &large, Err(Reason::UploadTooLarge)),
            ("application/octet-stream", &large, Err(Reason::UploadTooLarge)),
            ("application/x-www-form-urlencoded", b"a=<script>", Ok(())),
            ("application/x-protobuf", &[0; 20_000], Ok(())),
            ("text/html", b"<html>", Ok(())),
            ("application/grpc", b"\0\0\x01\0\0", Ok(())),
        ] {
            assert_eq!(
                raw(Method::POST, "/upload", content_type, body, piece),
                wanted,
                "{content_type} {piece}"
            );
        }
    }
    assert_eq!(raw(Method::PUT, "/files/a.png", "", b"words", 9), Err(Reason::UploadTypeDenied));
    assert_eq!(raw(Method::POST, "/files/a.png", "", b"words", 9), Ok(()));
    assert_eq!(raw(Method::PUT, "/files/a.unknown", "", b"words", 9), Ok(()));
}

/// What may be a conversation is not held back; what is a file is.
#[test]
fn only_files_are_held_back() {
    let prefix = |content_type| begin(Method::POST, "/", content_type).expect("sound").prefix(None);
    assert_eq!(prefix("multipart/form-data; boundary=b7"), PREFIX);
    assert_eq!(prefix("image/png"), PREFIX);
    assert_eq!((prefix("application/grpc"), prefix("text/plain"), prefix("")), (0, 0, 0));
}

/// A cap of nothing would refuse every upload.
#[test]
fn bad_caps_are_refused_at_start() {
    let key = |part, parts| {
        let config = Config { part: ByteSize(part), parts, types: Toggle::Off };
        Uploads::build(&config).expect_err("refused").key
    };
    assert_eq!((key(0, 1), key(1, 0)), ("uploads.part".into(), "uploads.parts".into()));
}

proptest! {
    /// A text that is harmless only in some pieces, or is changed beside its place, is an attack or a broken form; and what
    /// was handed on can't be changed any more.
    #[test]
    fn texts_leave_inert_however_they_come(
        texts in prop::collection::vec("[a<>/=\\-\r\nb7 ]{0,6}(<svg|</script|<b onx=|\u{200b}|\r\n-\u{200b}-b7|--b7)?[ >x]{0,3}", 1..5),
        piece in 1usize..60, streams_at in 0usize..400, promised: bool,
    ) {
        let parts: Vec<_> = texts.iter().enumerate().flat_map(|(i, text)| {
            let name = if i % 2 == 0 { "message[]" } else { "other" };
            [part("; filename=\"a.txt\"", "", b"x"), format!("--b7\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").into_bytes()]
        }).collect();
        let body = whole(&parts);
        let begin = || {
            let request = Request::new(Method::POST).with("content-type", "multipart/form-data; boundary=b7");
            uploads(10_000, 99).begin(&request.head(), texts_of(99)).expect("sound")
        };
        // What is a form, and what becomes of it when it comes at once.
        let arrive = |body: &[u8], piece: usize, streams_at: usize, promised: bool| -> Result<(Vec<u8>, usize), Reason> {
            let mut upload = begin();
            let (mut edits, mut fed, mut gone, mut streams) = (Vec::new(), 0, 0, false);
            let fail = |refusal: Refusal| refusal.reason;
            for chunk in body.chunks(piece) {
                upload.feed(chunk).map_err(fail)?;
                fed += chunk.len();
                if !streams && fed >= streams_at && upload.held_from().is_none() {
                    upload.stream(promised).map_err(fail)?;
                    streams = true;
                }
                let new = upload.take_edits();
                assert!(new.iter().all(|(span, _)| span.start >= gone && span.end <= fed), "{new:?} {gone}");
                assert!(!promised || new.is_empty() || gone == 0);
                edits.extend(new);
                if streams {
                    gone = upload.held_from().map_or(fed, |from| from as usize);
                }
            }
            upload.end().map_err(fail)?;
            edits.extend(upload.take_edits());
            Ok((json::splice(body, &edits).expect("in order"), edits.len()))
        };
        let at_once = arrive(&body, body.len(), usize::MAX, false);
        prop_assert_eq!(&arrive(&body, piece, usize::MAX, false), &at_once);
        if let Ok((left, _)) = &at_once {
            prop_assert_eq!(arrive(left, piece, usize::MAX, false), Ok((left.clone(), 0)));
        }
        if let Ok((left, edits)) = arrive(&body, piece, streams_at, promised) {
            prop_assert_eq!(arrive(&left, piece, usize::MAX, false), Ok((left.clone(), 0)), "{} edits", edits);
        }
    }

    /// A file that is refused whole must not pass in pieces.
    #[test]
    fn pieces_change_no_verdict(
        name in "[a-z]{1,2}\\.(png|txt|exe|php\\.png)", start in prop::sample::select(STARTS),
        length in 0usize..12_000, piece in 1usize..5000,
    ) {
        let content = [start, &vec![b'x'; length]].concat();
        let body = whole(&[part(&format!("; filename=\"{name}\""), "", &content)]);
        let upload = || begin(Method::POST, "/", "multipart/form-data; boundary=b7").expect("sound");
        prop_assert_eq!(verdict(upload(), &body, piece), verdict(upload(), &body, body.len()));
    }
}
