//! Puts a request together from what the command line says, as HTTP/1.1 writes it.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;

use super::ExplainArgs;
use crate::config::Settings;

/// A request in bytes.
pub struct Request {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Bytes of them that are the body.
    pub body: usize,
    /// Method.
    pub method: String,
    /// Path and query as asked for.
    pub target: String,
    /// Host asked for.
    pub host: String,
}

impl Request {
    pub(super) fn build(args: &ExplainArgs, settings: &Settings) -> Result<Self, String> {
        let (authority, target) = split(&args.url)?;
        let body = args.data.as_deref().map(read).transpose()?;
        let method =
            args.request.clone().unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
        let named = |name: &str| {
            args.headers.iter().map(|field| field.as_bytes()).find_map(|field| {
                let colon = field.iter().position(|b| *b == b':')?;
                field[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| field[colon + 1..].trim_ascii())
            })
        };
        let host = match (named("host"), authority) {
            (Some(host), _) => String::from_utf8_lossy(host).into_owned(),
            (None, Some(authority)) => authority.to_owned(),
            (None, None) => default_host(settings),
        };
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        let mut add = |name: &str, value: &str| {
            if named(name).is_none() {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        };
        add("Host", &host);
        add("User-Agent", concat!("tidegate-explain/", env!("CARGO_PKG_VERSION")));
        add("Accept", "*/*");
        if let Some(body) = &body {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
            add("Content-Type", if json { "application/json" } else { "application/x-www-form-urlencoded" });
            if named("transfer-encoding").is_none() {
                add("Content-Length", &body.len().to_string());
            }
        }
        for field in &args.headers {
            bytes.extend_from_slice(field.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let body = body.unwrap_or_default();
        bytes.extend_from_slice(&body);
        Ok(Self { bytes, body: body.len(), method, target: target.into_owned(), host })
    }
}

/// Authority and target of a URL, or of a path alone.
fn split(url: &str) -> Result<(Option<&str>, std::borrow::Cow<'_, str>), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let (authority, target) = match rest {
        None => (None, url),
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
    };
    let target = target.split('#').next().unwrap_or_default();
    match target.as_bytes().first() {
        Some(b'/') => Ok((authority, target.into())),
        None | Some(b'?') if authority.is_some() => Ok((authority, format!("/{target}").into())),
        _ => Err(format!("{url:?} is neither a URL nor a path; write http://host/path or /path")),
    }
}

fn read(data: &OsStr) -> Result<Vec<u8>, String> {
    let Some(file) = data.as_bytes().strip_prefix(b"@") else { return Ok(data.as_bytes().to_vec()) };
    let mut body = Vec::new();
    let read = match file {
        b"-" => std::io::stdin().read_to_end(&mut body).map(drop),
        file => std::fs::read(OsStr::from_bytes(file)).map(|read| body = read),
    };
    read.map(|()| body).map_err(|why| format!("{} can't be read: {why}", String::from_utf8_lossy(file)))
}

/// The first name that is served, else the one that a browser on this machine would ask for.
fn default_host(settings: &Settings) -> String {
    let named = settings.fallback().and_then(|guards| guards.first_host());
    let port = settings.server.listen.rsplit(':').next().unwrap_or("80");
    named.unwrap_or_else(|| format!("localhost:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People paste what they have: a URL from the browser, or a path out of a log.
    #[test]
    fn urls_and_paths_are_taken() {
        let parts =
            |url| split(url).map(|(authority, target)| (authority.map(str::to_owned), target.into_owned()));
        let of = |authority: &str, target: &str| Ok((Some(authority.to_owned()), target.to_owned()));
        assert_eq!(parts("https://chat.example:8443/a?b=/c#d"), of("chat.example:8443", "/a?b=/c"));
        assert_eq!(parts("http://[::1]"), of("[::1]", "/"));
        assert_eq!(parts("http://a.example?q"), of("a.example", "/?q"));
        assert_eq!(parts("/a//b?c"), Ok((None, "/a//b?c".to_owned())));
        assert!(parts("chat.example/a").is_err() && parts("").is_err());
    }
}
