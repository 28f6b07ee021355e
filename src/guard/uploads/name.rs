//! Names of uploaded files: refused if some system would not take them for the plain name of one file.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::encoded_word;

/// Longest name, in bytes: what file systems hold.
const LONGEST: usize = 255;

/// What servers run wherever it stands in a name: `a.php.jpg` is a program to some.
const RUN: &[&str] = &[
    "php", "php3", "php4", "php5", "php7", "php8", "phps", "phtml", "pht", "phar", "shtml", "asp", "aspx",
    "ashx", "asmx", "jsp", "jspx", "cgi", "exe", "scr", "bat", "cmd", "vbs", "ps1", "hta", "jar", "msi",
    "dll",
];

/// Why a name is denied, as a clause for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odd(pub &'static str);

/// A name in UTF-8, or as .NET and Spring write one that is not ASCII: in encoded words. An app that does not decode
/// these gets a name of letters, digits and the like, which leads nowhere.
pub fn decode(raw: &[u8]) -> Result<Cow<'_, str>, Odd> {
    let name = str::from_utf8(raw).map_err(|_| Odd("is not UTF-8"))?;
    match encoded_word::decode(name) {
        None => Ok(Cow::Borrowed(name)),
        Some(Ok(decoded)) if encoded_word::decode(&decoded).is_none() => Ok(Cow::Owned(decoded)),
        Some(_) => Err(Odd("is not encoded as RFC 2047 says, in UTF-8 and once")),
    }
}

/// Decodes `filename*` (RFC 8187 §3.2): `UTF-8''%e2%82%ac.txt`, or the same in ISO-8859-1.
pub fn decode_extended(raw: &[u8]) -> Result<String, Odd> {
    const BAD: Odd = Odd("is not encoded as RFC 8187 says");
    let text = str::from_utf8(raw).ok().filter(|text| text.is_ascii()).ok_or(BAD)?;
    let (charset, rest) = text.split_once('\'').ok_or(BAD)?;
    let (_language, value) = rest.split_once('\'').ok_or(BAD)?;
    let bytes = unescape(value).ok_or(BAD)?;
    if charset.eq_ignore_ascii_case("utf-8") {
        String::from_utf8(bytes.into_owned()).map_err(|_| BAD)
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Ok(bytes.iter().map(|b| char::from(*b)).collect())
    } else {
        Err(BAD)
    }
}

/// Resolves percent escapes; `None` if one is broken.
fn unescape(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16);
        let [high, low, after @ ..] = rest else { return None };
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    Some(Cow::Owned(bytes))
}

/// Refuses names that leave their directory, that hide what they are, or that name a device. A relative path without
/// such steps passes: browsers send it for the files of a directory.
pub fn check(name: &str) -> Result<(), Odd> {
    if name.len() > LONGEST {
        return Err(Odd("is longer than 255 bytes"));
    }
    check_plain(name)?;
    // Some servers decode once more, and of broken escapes only those that are none.
    match percent_decode_str(name).decode_utf8_lossy() {
        Cow::Owned(decoded) => check_plain(&decoded),
        Cow::Borrowed(_) => Ok(()),
    }
}

fn check_plain(name: &str) -> Result<(), Odd> {
    for c in name.chars() {
        match c {
            '\\' => return Err(Odd("holds a backslash")),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                return Err(Odd("turns the direction of writing"));
            }
            _ if c.is_control() => return Err(Odd("holds a control character")),
            _ => {}
        }
    }
    if name.starts_with('/') || matches!(name.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic()) {
        return Err(Odd("is an absolute path"));
    }
    // The wide and the mathematical slash become plain ones where names are normalised.
    name.split(['/', '\u{ff0f}', '\u{2044}', '\u{2215}', '\u{ff3c}']).try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), Odd> {
    match segment {
        "" => return Err(Odd("has an empty part")),
        "." | ".." => return Err(Odd("leaves its directory")),
        _ => {}
    }
    if segment.starts_with('.') {
        return Err(Odd("begins with a dot"));
    }
    if segment.ends_with(['.', ' ']) {
        return Err(Odd("ends with a dot or a space"));
    }
    if segment.contains("::$") || is_device(segment) {
        return Err(Odd("names a device or a stream of a file"));
    }
    let mut inner = segment.split('.').skip(1).peekable();
    while let Some(extension) = inner.next() {
        if inner.peek().is_some() && RUN.iter().any(|run| extension.trim().eq_ignore_ascii_case(run)) {
            return Err(Odd("has the extension of a program in front of another"));
        }
    }
    Ok(())
}

/// Names that Windows keeps for devices, with whatever extension.
fn is_device(segment: &str) -> bool {
    let stem = segment.split('.').next().unwrap_or_default().trim_end();
    let is = |name: &str| stem.eq_ignore_ascii_case(name);
    let numbered = |port: &str| {
        let rest = stem.get(..3).filter(|start| start.eq_ignore_ascii_case(port)).map(|_| &stem[3..]);
        rest.is_some_and(|rest| {
            let mut chars = rest.chars();
            matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        })
    };
    ["con", "prn", "aux", "nul", "conin$", "conout$"].into_iter().any(is)
        || numbered("com")
        || numbered("lpt")
}

/// The extension, in lower case; `None` if the name has none.
pub fn extension(name: &str) -> Option<String> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let (stem, extension) = last.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ordinary names in any language must pass.
    #[test]
    fn plain_names_pass() {
        for name in [
            "a.png",
            "Bildschirmfoto 2026-01-01 um 10.30.00.png",
            "Übersicht (1) – Kopie.pdf",
            "отчёт.docx",
            "报告.pdf",
            "דוח.pdf",
            "www.example.com.pdf",
            "node.js.png",
            "archive.v1.2.txt",
            "100%25.txt",
            "50% off.txt",
            "blob",
            "console.txt",
            "common.csv",
            "photos/2026/a.jpg",
            "a..b.txt",
            "com10.txt",
            "👩‍💻.png",
            "page.html.pdf",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    /// Each of these is something else to some system than a file of that name.
    #[test]
    fn odd_names_are_denied() {
        let long = "a".repeat(256);
        for name in [
            "../a.png",
            "a/../../b.png",
            "..",
            ".",
            "..\\a.png",
            "a\\b.png",
            "/etc/passwd",
            "C:\\a.png",
            "c:a.png",
            "a//b",
            "%2e%2e%2fa.png",
            "..%2Fa.png",
            "a%00.png",
            "%2f%",
            "..%2fa%.png",
            "%ff%2f..",
            "a\0.png",
            "a\r\n.png",
            "a\u{85}.png",
            "\u{7f}.png",
            ".htaccess",
            "a/.env",
            "a.",
            "a ",
            "a.png.",
            "a./b.png",
            "CON",
            "nul.txt",
            "Com1.png",
            "lpt9",
            "COM¹.txt",
            "aux .txt",
            "conout$",
            "a.txt::$DATA",
            "x.php.jpg",
            "x.PhP5.jpg",
            "x.asp.;.jpg",
            "gpj.\u{202e}exe.png",
            "a\u{2066}b.png",
            "..\u{ff0f}a.png",
            "a\u{ff3c}..\u{ff3c}b",
            "",
            &long,
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    /// The extension decides about the type: it must be the one that the app will see.
    #[test]
    fn extensions() {
        for (name, wanted) in [
            ("a.PNG", Some("png")),
            ("a.tar.gz", Some("gz")),
            ("blob", None),
            ("dir.d/blob", None),
            (".png", None),
            ("a.", None),
        ] {
            assert_eq!(extension(name).as_deref(), wanted, "{name}");
        }
    }

    /// RFC 8187 §3.2.3 and what breaks its rules.
    #[test]
    fn extended_names_are_decoded() {
        let decoded = |raw: &str| decode_extended(raw.as_bytes()).ok();
        assert_eq!(decoded("UTF-8''%c2%a3%20rates.txt").as_deref(), Some("£ rates.txt"));
        assert_eq!(decoded("iso-8859-1'en'%A3%20rates").as_deref(), Some("£ rates"));
        for bad in ["a.txt", "utf-8'a.txt", "utf-7''a", "UTF-8''%zz", "UTF-8''%4", "UTF-8''%ff", "UTF-8''ü"]
        {
            assert_eq!(decoded(bad), None, "{bad}");
        }
        assert_eq!(check(&decoded("utf-8''..%2fa").expect("decodes")), Err(Odd("leaves its directory")));
    }

    /// What .NET and Spring send for a name that is not ASCII is judged by what the app makes of it.
    #[test]
    fn encoded_names_are_decoded() {
        let read =
            |raw: &str| decode(raw.as_bytes()).and_then(|name| check(&name).map(|()| name.into_owned()));
        for (raw, name) in [
            ("=?utf-8?B?w7wucG5n?=", "ü.png"),
            ("=?UTF-8?Q?=C3=BC_x.png?=", "ü x.png"),
            ("=?utf-8?B?w7w=?= =?utf-8?B?LnBuZw==?=", "ü.png"),
            ("=?what?.png", "=?what?.png"),
        ] {
            assert_eq!(read(raw).as_deref(), Ok(name), "{raw}");
        }
        for raw in [
            "=?utf-8?B?Li4vYS5wbmc=?=",             // ../a.png
            "=?utf-8?Q?..=2Fa.png?=",               // the same
            "=?utf-8?B?YQAucG5n?=",                 // a NUL
            "=?utf-8?Q?a=0D=0Ab.png?=",             // a line break
            "=?utf-8?B?eC5waHAuanBn?=",             // x.php.jpg
            "=?utf-8?B?eC5waHA?= =?utf-8?Q?.jpg?=", // the same in two words
            "=?utf-8?B?PT91dGYtOD9CP1lRPT0/PQ==?=", // an encoded word
            "=?utf-7?Q?a.png?=",
            "=?utf-8?B?!!?=",
            "=?utf-8?B?/w==?=",
            "=?utf-8?B?w7wucG5n?= x",
        ] {
            assert!(read(raw).is_err(), "{raw}");
        }
    }

    proptest! {
        /// A name that would panic the guard would cost the request its answer.
        #[test]
        fn never_panics(name in ".{0,40}", raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (check(&name), extension(&name), decode(&raw), decode_extended(&raw));
        }

        /// Whatever passes stays in its directory on any system.
        #[test]
        fn what_passes_is_one_file(name in "[a.%25eEfF/\\\\: \u{2f}]{1,12}") {
            prop_assume!(check(&name).is_ok());
            let decoded = name.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%5c", "\\");
            for text in [&name, &decoded] {
                prop_assert!(!text.contains('\\') && !text.starts_with('/'), "{text}");
                prop_assert!(text.split('/').all(|segment| !segment.is_empty() && segment != ".."), "{text}");
            }
        }
    }
}
