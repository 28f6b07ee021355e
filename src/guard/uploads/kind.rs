//! What a file is: by what it is called and by what it holds, which have to agree.

use memchr::memmem;
use schemars::JsonSchema;
use serde::Deserialize;

/// First bytes of a file that are looked at.
pub const SNIFFED: usize = 4096;

/// A kind of file, by its usual extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Png,
    Jpeg,
    Gif,
    Webp,
    Avif,
    Heic,
    Bmp,
    Tiff,
    Mp3,
    M4a,
    Aac,
    Wav,
    Ogg,
    Flac,
    Amr,
    Webm,
    Mp4,
    Mov,
    Pdf,
    Txt,
    Md,
    Csv,
    Json,
    Docx,
    Xlsx,
    Pptx,
    Odt,
    Ods,
    Odp,
    Rtf,
    Doc,
    Xls,
    Ppt,
    Epub,
    Zip,
}

/// Kinds that are taken for each other all day: a `.jpg` that is a PNG shows as well, and does no more harm.
const ALIKE: &[&[Kind]] = &[
    &[Kind::Png, Kind::Jpeg, Kind::Gif, Kind::Webp, Kind::Avif, Kind::Heic, Kind::Bmp, Kind::Tiff],
    &[
        Kind::Mp3,
        Kind::M4a,
        Kind::Aac,
        Kind::Wav,
        Kind::Ogg,
        Kind::Flac,
        Kind::Amr,
        Kind::Webm,
        Kind::Mp4,
        Kind::Mov,
    ],
];

/// How a kind is recognised.
struct Marks {
    kind: Kind,
    extensions: &'static [&'static str],
    /// Media types that clients declare.
    declared: &'static [&'static str],
    /// What [`sniff`] may say of its content.
    content: &'static [&'static str],
}

const ZIP: &str = "application/zip";
const OLE: &str = "application/x-ole-storage";
const TEXT: &str = "text/plain";
const ISO: &[&str] = &["video/mp4", "video/x-m4v", "video/quicktime", "audio/m4a"];
const MATROSKA: &[&str] = &["video/webm", "video/x-matroska"];
const WORD: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
const SHEET: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const SLIDES: &str = "application/vnd.openxmlformats-officedocument.presentationml.presentation";
const ODT: &str = "application/vnd.oasis.opendocument.text";
const ODS: &str = "application/vnd.oasis.opendocument.spreadsheet";
const ODP: &str = "application/vnd.oasis.opendocument.presentation";

macro_rules! marks {
    ($($kind:ident: $extensions:expr, $declared:expr, $content:expr;)*) => {
        const MARKS: &[Marks] = &[
            $(Marks { kind: Kind::$kind, extensions: &$extensions, declared: &$declared, content: $content },)*
        ];
    };
}

marks! {
    Png: ["png"], ["image/png"], &["image/png"];
    Jpeg: ["jpg", "jpeg", "jpe", "jfif"], ["image/jpeg", "image/jpg", "image/pjpeg"], &["image/jpeg"];
    Gif: ["gif"], ["image/gif"], &["image/gif"];
    Webp: ["webp"], ["image/webp"], &["image/webp"];
    Avif: ["avif"], ["image/avif"], &["image/avif"];
    Heic: ["heic", "heif"], ["image/heic", "image/heif"], &["image/heif"];
    Bmp: ["bmp"], ["image/bmp", "image/x-ms-bmp"], &["image/bmp"];
    Tiff: ["tif", "tiff"], ["image/tiff"], &["image/tiff"];
    Mp3: ["mp3", "mpga"], ["audio/mpeg", "audio/mp3", "audio/mpga"], &["audio/mpeg"];
    M4a: ["m4a"], ["audio/mp4", "audio/m4a", "audio/x-m4a"], ISO;
    Aac: ["aac"], ["audio/aac"], &["audio/aac"];
    Wav: ["wav", "wave"], ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"], &["audio/x-wav"];
    Ogg: ["ogg", "oga", "opus"], ["audio/ogg", "audio/opus", "application/ogg"], &["audio/ogg", "audio/opus"];
    Flac: ["flac"], ["audio/flac", "audio/x-flac"], &["audio/x-flac"];
    Amr: ["amr"], ["audio/amr"], &["audio/amr"];
    Webm: ["webm", "weba"], ["video/webm", "audio/webm"], MATROSKA;
    Mp4: ["mp4", "m4v"], ["video/mp4", "video/x-m4v"], ISO;
    Mov: ["mov"], ["video/quicktime"], ISO;
    Pdf: ["pdf"], ["application/pdf"], &["application/pdf"];
    Txt: ["txt", "text", "log", "srt", "vtt"], ["text/plain", "text/vtt", "application/x-subrip"], &[TEXT];
    Md: ["md", "markdown"], ["text/markdown", "text/x-markdown"], &[TEXT];
    Csv: ["csv", "tsv"], ["text/csv", "text/tab-separated-values"], &[TEXT];
    Json: ["json", "jsonl", "ndjson"], ["application/json", "application/jsonl", "application/x-ndjson"], &[TEXT];
    Docx: ["docx"], [WORD], &[WORD, ZIP];
    Xlsx: ["xlsx"], [SHEET], &[SHEET, ZIP];
    Pptx: ["pptx"], [SLIDES], &[SLIDES, ZIP];
    Odt: ["odt"], [ODT], &[ODT, ZIP];
    Ods: ["ods"], [ODS], &[ODS, ZIP];
    Odp: ["odp"], [ODP], &[ODP, ZIP];
    Rtf: ["rtf"], ["application/rtf", "text/rtf"], &["application/rtf"];
    Doc: ["doc"], ["application/msword"], &["application/msword", OLE];
    Xls: ["xls"], ["application/vnd.ms-excel"], &["application/vnd.ms-excel", OLE];
    Ppt: ["ppt"], ["application/vnd.ms-powerpoint"], &["application/vnd.ms-powerpoint", OLE];
    Epub: ["epub"], ["application/epub+zip"], &["application/epub+zip", ZIP];
    Zip: ["zip"], ["application/zip", "application/x-zip-compressed"], &[ZIP];
}

/// Declared types that a browser or server would run, whatever the file holds.
const ACTIVE: &[&str] = &[
    "text/html",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/xml",
    "application/xml",
    "text/javascript",
    "application/javascript",
    "application/x-javascript",
    "application/x-httpd-php",
    "application/x-php",
    "application/x-sh",
    "application/x-msdownload",
    "application/x-shockwave-flash",
    "application/java-archive",
];

/// How documents and programs in text begin, in lower case.
const SCRIPTS: &[&[u8]] =
    &[b"#!", b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe", b"<svg", b"<?", b"<%"];

/// What no picture, sound or film has in its first bytes, in lower case, but a file that is also a page or a program.
const HIDDEN: &[&[u8]] = &[b"<script", b"<?php", b"<svg", b"<html", b"<iframe"];

/// How programs begin.
const PROGRAMS: &[&[u8]] =
    &[b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\0asm", b"dex\n"];

/// Why a file is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its name's extension stands for no kind that is allowed.
    Name,
    /// So does its declared type.
    Declared,
    /// Its content is of no kind that is allowed.
    Content,
    /// Its content is another than its name or declared type says.
    Contradiction,
    /// It is a page, a script or a program.
    Active,
}

impl Denied {
    /// A clause for the caller.
    pub const fn why(self) -> &'static str {
        match self {
            Denied::Name => "the extension of its name is not among the types that may be uploaded",
            Denied::Declared => "its Content-Type is not among the types that may be uploaded",
            Denied::Content => "its content is of no type that may be uploaded",
            Denied::Contradiction => "its content is not of the type that its name or Content-Type says",
            Denied::Active => "it is a page, a script or a program",
        }
    }
}

/// What a file claims to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// Extension of its name, in lower case.
    pub extension: Option<&'a str>,
    /// Declared media type without parameters, in lower case.
    pub declared: Option<&'a str>,
}

impl Claim<'_> {
    /// The kind that the declared type names.
    fn declared_kind(&self) -> Option<Kind> {
        let declared = self.declared?;
        Some(MARKS.iter().find(|marks| marks.declared.contains(&declared))?.kind)
    }

    /// The kind that the extension names.
    fn named_kind(&self) -> Option<Kind> {
        named(self.extension?)
    }

    /// Whether what is said of it says that it is a file: more than text, which other things than files are, too.
    pub fn is_file(&self) -> bool {
        let binary = |kind: Kind| marks(kind).is_some_and(|marks| marks.content != [TEXT]);
        self.named_kind().is_some() || self.declared_kind().is_some_and(binary)
    }

    /// The name decides; where it has no extension (`blob`), the declared type does. `None`: nothing is claimed.
    fn kind(&self) -> Result<Option<Kind>, Denied> {
        if self.declared.is_some_and(|declared| ACTIVE.contains(&declared)) {
            return Err(Denied::Active);
        }
        if self.extension.is_some() {
            return self.named_kind().map(Some).ok_or(Denied::Name);
        }
        match self.declared {
            None | Some("application/octet-stream" | "") => Ok(None),
            Some(_) => self.declared_kind().map(Some).ok_or(Denied::Declared),
        }
    }
}

/// Holds a file against the kinds that are allowed. `start`: its first [`SNIFFED`] bytes, or all of it.
pub fn judge(allowed: &[Kind], claim: Claim<'_>, start: &[u8]) -> Result<(), Denied> {
    let kind = claim.kind()?;
    match kind {
        Some(kind) if allowed.contains(&kind) => {}
        Some(_) if claim.extension.is_some() => return Err(Denied::Name),
        Some(_) => return Err(Denied::Declared),
        None => {}
    }
    if start.is_empty() {
        return Ok(());
    }
    let content = sniff(start);
    if content == TEXT && is_script(start) || content != TEXT && hides_script(start) {
        return Err(Denied::Active);
    }
    let fits = |kind: &Kind| marks(*kind).is_some_and(|marks| marks.content.contains(&content));
    let alike = |kind: Kind| ALIKE.iter().filter(move |kinds| kinds.contains(&kind)).copied().flatten();
    match kind {
        Some(kind) if fits(&kind) => Ok(()),
        Some(kind) if alike(kind).any(|kind| allowed.contains(kind) && fits(kind)) => Ok(()),
        Some(_) => Err(Denied::Contradiction),
        None if allowed.iter().any(fits) => Ok(()),
        None => Err(Denied::Content),
    }
}

/// Whether an extension, in lower case, stands for a kind.
pub fn is_known(extension: &str) -> bool {
    named(extension).is_some()
}

fn named(extension: &str) -> Option<Kind> {
    Some(MARKS.iter().find(|marks| marks.extensions.contains(&extension))?.kind)
}

fn marks(kind: Kind) -> Option<&'static Marks> {
    MARKS.iter().find(|marks| marks.kind == kind)
}

/// Whether these are the first bytes of something that is a file by its content: of a kind that is known here, or a
/// program. Short signatures of rarer kinds also begin messages of protocols that know nothing of files.
pub fn is_file(start: &[u8]) -> bool {
    let content = sniff(start);
    let known = || MARKS.iter().any(|marks| marks.content.contains(&content));
    content != TEXT && (known() || PROGRAMS.iter().any(|program| start.starts_with(program)))
}

/// Content that nothing is known of.
const UNKNOWN: &str = "application/octet-stream";

/// The media type of content, by its first bytes; `text/plain` for whatever is text.
fn sniff(start: &[u8]) -> &'static str {
    let found = infer::get(start).map(|found| found.mime_type()).filter(|mime| !mime.starts_with("text/"));
    // Two letters are a signature to some: a letter that begins with "BM" or "MZ" is no picture or program.
    let doubtful =
        matches!(found, None | Some("image/bmp" | "application/vnd.microsoft.portable-executable"));
    match found {
        _ if doubtful && is_text(start) => TEXT,
        Some(mime) => mime,
        // Brands of MP4 are many, and so are the beginnings of films in WebM and of sounds in MP3.
        None if start.get(4..8) == Some(b"ftyp") => "video/mp4",
        None if start.starts_with(b"\x1a\x45\xdf\xa3") => "video/webm",
        None if start.len() > 1 && start[0] == 0xff && start[1] & 0xe6 == 0xe2 => "audio/mpeg",
        None => UNKNOWN,
    }
}

/// Text in UTF-8, in any 8-bit charset, or in UTF-16 that says so.
fn is_text(start: &[u8]) -> bool {
    let binary = |b: &u8| matches!(b, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f);
    is_utf16(start) || !start.iter().any(binary)
}

fn is_utf16(start: &[u8]) -> bool {
    start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff")
}

/// Whether a text is a page or a program, judged by its first visible characters.
fn is_script(start: &[u8]) -> bool {
    let blank = |b: &u8| b.is_ascii_whitespace() || matches!(b, 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    let visible = start.iter().copied().skip_while(|b| blank(b)).filter(|b| *b != 0);
    let head: Vec<u8> = visible.take(16).map(|b| b.to_ascii_lowercase()).collect();
    SCRIPTS.iter().any(|script| head.starts_with(script))
}

fn hides_script(start: &[u8]) -> bool {
    let lower = start.to_ascii_lowercase();
    // Most files have no such byte pair at all.
    memchr::memchr(b'<', &lower).is_some() && HIDDEN.iter().any(|word| memmem::find(&lower, word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80";
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
    const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    const ALLOWED: &[Kind] =
        &[Kind::Png, Kind::Gif, Kind::Txt, Kind::Md, Kind::Docx, Kind::Mp4, Kind::Mp3, Kind::Webm];

    fn verdict(name: &str, declared: &str, start: &[u8]) -> Result<(), Denied> {
        let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
        judge(ALLOWED, Claim { extension: some(name), declared: some(declared) }, start)
    }

    /// What people send to a chat must pass, however their browser or script labels it.
    #[test]
    fn honest_files_pass() {
        for (extension, declared, start) in [
            ("png", "image/png", PNG),
            ("png", "application/octet-stream", PNG),
            ("", "image/png", PNG),
            ("", "", PNG),
            ("png", "image/png", GIF),
            ("txt", "text/plain", b"plain \xc3\xbc words, a < b and <b>"),
            ("txt", "", b"MZ is what Mark Zbikowski left behind"),
            ("txt", "", b"\xff\xfeh\0i\0"),
            ("md", "text/markdown", b"<p align=\"center\">\n# Title"),
            ("docx", WORD, b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0"),
            ("mp4", "video/mp4", b"\0\0\0\x18ftypdby1\0\0\0\0"),
            ("mp3", "audio/mpeg", b"\xff\xe3\x18\xc4\0\0\0\x03"),
            (
                "webm",
                "audio/webm;codecs=opus".split(';').next().unwrap_or(""),
                b"\x1a\x45\xdf\xa3\x9fB\x86\x81",
            ),
            ("txt", "text/plain", b""),
        ] {
            assert_eq!(verdict(extension, declared, start), Ok(()), "{extension} {declared} {start:?}");
        }
    }

    /// A page or program under a picture's name runs where the picture would have been shown.
    #[test]
    fn disguises_are_seen() {
        for (extension, declared, start, why) in [
            ("png", "image/png", b"<script>alert(1)</script>".as_slice(), Denied::Active),
            ("png", "image/png", b"\xef\xbb\xbf \n<!DOCTYPE html><p>", Denied::Active),
            ("txt", "text/plain", b"\xff\xfe<\0s\0c\0r\0i\0p\0t\0>\0", Denied::Active),
            ("txt", "text/plain", b"#!/bin/sh\nrm", Denied::Active),
            ("md", "", b"<?php system($_GET[0]);", Denied::Active),
            ("gif", "image/gif", b"GIF89a/*\0<ScRiPt src=//x>*/", Denied::Active),
            ("png", "text/html", PNG, Denied::Active),
            ("png", "image/svg+xml", PNG, Denied::Active),
            ("png", "image/png", ELF, Denied::Contradiction),
            ("png", "image/png", b"MZ\x90\0\x03\0\0\0", Denied::Contradiction),
            ("png", "image/png", JPEG, Denied::Contradiction),
            ("txt", "text/plain", PNG, Denied::Contradiction),
            ("png", "image/png", b"\0\x01\x02 nothing known", Denied::Contradiction),
            ("png", "image/png", b"just words", Denied::Contradiction),
        ] {
            assert_eq!(verdict(extension, declared, start), Err(why), "{extension} {declared} {start:?}");
        }
    }

    /// What is not on the list is denied, wherever it says what it is.
    #[test]
    fn kinds_that_are_not_listed_are_denied() {
        assert_eq!(verdict("exe", "image/png", PNG), Err(Denied::Name));
        assert_eq!(verdict("jpg", "image/jpeg", JPEG), Err(Denied::Name));
        assert_eq!(verdict("", "image/jpeg", JPEG), Err(Denied::Declared));
        assert_eq!(verdict("", "application/x-odd", PNG), Err(Denied::Declared));
        assert_eq!(verdict("", "", JPEG), Err(Denied::Content));
        assert_eq!(verdict("", "", ELF), Err(Denied::Content));
    }

    /// A kind without marks could be listed and never be met.
    #[test]
    fn every_kind_has_marks() {
        assert_eq!(MARKS.len(), Kind::Zip as usize + 1);
        for (place, marks) in MARKS.iter().enumerate() {
            assert_eq!(marks.kind as usize, place);
        }
    }
}
