//! Grammar of the field values that frame and route a request; HTTP/1 and HTTP/2 share it.

use super::malformed;
use crate::guard::{Refusal, Verdict};

/// RFC 9110 §5.6.2 `tchar`.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let alphanumeric = (byte as u8).is_ascii_alphanumeric();
        let mark = matches!(
            byte as u8,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        table[byte] = alphanumeric || mark;
        byte += 1;
    }
    table
};

/// Bytes of a host's name: RFC 3986 §3.2.2 `reg-name` without `%` and `,`.
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let mark = matches!(
            byte as u8,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        );
        table[byte] = (byte as u8).is_ascii_alphanumeric() || mark;
        byte += 1;
    }
    table
};

pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| is_token_byte(*b))
}

/// Whether a field value holds only what it may: tab, space, visible ASCII and octets beyond (RFC 9110 §5.5).
pub(super) fn is_field_content(value: &[u8]) -> bool {
    // A fold, not `all`: without the early exit it is compiled to vector code.
    !value.iter().fold(false, |bad, &b| bad | (b < b' ') & (b != b'\t') | (b == 0x7f))
}

/// The elements of a comma-separated list; empty ones are skipped (RFC 9110 §5.6.1.2).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Checks a Content-Length; says whether it announces a body. Eighteen digits are an exabyte, and fit every
/// integer.
pub(super) fn content_length(value: &[u8]) -> Result<bool, Refusal> {
    let digits = value.iter().all(u8::is_ascii_digit);
    if !digits || value.is_empty() || value.len() > 18 {
        return Err(malformed(
            "Content-Length is not one decimal number of at most 18 digits (RFC 9112 §6.2).",
        ));
    }
    Ok(value.iter().any(|digit| *digit != b'0'))
}

/// Checks a `Host` or an authority: a name or address with an optional port (RFC 9110 §4.2.3, §7.2).
///
/// Stricter than RFC 3986's reg-name by `%` and `,`: no browser sends them, and an escaped or joined name is
/// read in more than one way.
pub(super) fn host(value: &[u8]) -> Verdict {
    let (name, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let literal = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            let (inner, rest) = rest.split_at(rest.iter().take_while(|b| literal(b)).count());
            (!inner.is_empty() && rest.starts_with(b"]"), rest.get(1..).unwrap_or_default())
        }
        None => {
            let (name, port) = value.split_at(value.iter().take_while(|b| HOST[usize::from(**b)]).count());
            (!name.is_empty(), port)
        }
    };
    let port = port.is_empty()
        || port.first() == Some(&b':') && port.len() <= 6 && port.iter().skip(1).all(u8::is_ascii_digit);
    match value {
        _ if name && port => Ok(()),
        [] => Err(malformed("Host is empty (RFC 9112 §3.2).")),
        value if value.contains(&b'@') => {
            Err(malformed("The authority holds user information (RFC 9110 §4.2.4)."))
        }
        _ => Err(malformed("Host is not a name or address with an optional port (RFC 9112 §3.2).")),
    }
}

/// Checks an `Expect`: there is one expectation (RFC 9110 §10.1.1), and a gate can't promise to meet another.
pub(super) fn expect(value: &[u8]) -> Verdict {
    if value.eq_ignore_ascii_case(b"100-continue") {
        return Ok(());
    }
    Err(malformed("Expect holds something else than 100-continue (RFC 9110 §10.1.1)."))
}

/// Checks a `Connection` value; says whether `upgrade` is among its options.
pub(super) fn connection(value: &[u8]) -> Result<bool, Refusal> {
    let mut upgrade = false;
    for option in elements(value) {
        if !is_token(option) {
            return Err(malformed("Connection is not a list of options (RFC 9110 §7.6.1)."));
        }
        if is_end_to_end(option) {
            return Err(malformed(
                "Connection names a field that is not this connection's to drop (RFC 9110 §7.6.1).",
            ));
        }
        upgrade |= option.eq_ignore_ascii_case(b"upgrade");
    }
    Ok(upgrade)
}

/// Fields that frame, route or authenticate a request, or that guards judge. One named in `Connection` is
/// removed by the next proxy, so that the upstream would answer another request than the one that was let
/// through.
fn is_end_to_end(option: &[u8]) -> bool {
    const NAMES: [&[u8]; 16] = [
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"authorization",
        b"cookie",
        b"origin",
        b"referer",
        b"forwarded",
        b"via",
        b"expect",
        b"range",
        b"user-agent",
        b"api-key",
        b"cache-control",
    ];
    let starts =
        |prefix: &[u8]| option.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts(b"x-") || starts(b"sec-") || NAMES.iter().any(|name| option.eq_ignore_ascii_case(name))
}

/// Checks an `Upgrade` value: protocols, each a token with an optional version (RFC 9110 §7.8).
pub(super) fn upgrade(value: &[u8]) -> Verdict {
    let protocol = |text: &[u8]| {
        let mut parts = text.splitn(2, |b| *b == b'/');
        parts.all(is_token)
    };
    if elements(value).next().is_none() || !elements(value).all(protocol) {
        return Err(malformed("Upgrade is not a list of protocols (RFC 9110 §7.8)."));
    }
    Ok(())
}

/// Whether a field name with underscores is a framing field's once `_` is read as `-`, as CGI and WSGI
/// upstreams do.
pub(super) fn imitates_framing(name: &[u8]) -> bool {
    const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
    let same = |(a, b): (&u8, &u8)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-');
    FRAMING.iter().any(|framing| {
        name.len() == framing.len() && name.contains(&b'_') && name.iter().zip(framing.iter()).all(same)
    })
}

pub(super) const IMITATION: &str =
    "A field name with an underscore imitates Content-Length or Transfer-Encoding.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_one_plain_number() {
        assert_eq!(content_length(b"0"), Ok(false));
        assert_eq!(content_length(b"000"), Ok(false));
        assert_eq!(content_length(b"0420"), Ok(true));
        for bad in
            ["", "+2", "-0", "0x10", "1_0", "4 2", "5,5", "5, 5", "5;", "1e3", "１", "9999999999999999999"]
        {
            assert!(content_length(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_names_one_place() {
        for good in
            ["chat.example", "a.b-c_d:80", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "localhost.", "h:"]
        {
            assert_eq!(host(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "u@h",
            "h:80:90",
            "h:8a",
            "h:123456",
            "[::1",
            "::1]",
            "[]",
            "[::1]x",
            "x[::1]",
            "[fe80::1%25eth0]",
            "%61.example",
            "ü.example",
            "<h>",
        ] {
            assert!(host(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn connection_drops_only_what_is_its_own() {
        assert_eq!(connection(b"keep-alive"), Ok(false));
        assert_eq!(connection(b"close, TE"), Ok(false));
        assert_eq!(connection(b", keep-alive ,\tUpgrade, HTTP2-Settings,"), Ok(true));
        for bad in [
            "close; x",
            "keep alive",
            "\"close\"",
            "close, Host",
            "X-Forwarded-For",
            "content-length",
            "Cookie",
            "X-Api-Key",
        ] {
            assert!(connection(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upgrade_names_protocols() {
        for good in ["websocket", "h2c", "HTTP/2.0, SHTTP/1.3"] {
            assert_eq!(upgrade(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["", ",", "web socket", "websocket/", "/13", "a/b/c", "websocket;x"] {
            assert!(upgrade(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_underscore_hides_no_framing_field() {
        for bad in ["Transfer_Encoding", "transfer_encoding", "Content_Length"] {
            assert!(imitates_framing(bad.as_bytes()), "{bad}");
        }
        for good in ["Content-Length", "Transfer-Encoding", "content_lengths", "x_content_length", "api_key"]
        {
            assert!(!imitates_framing(good.as_bytes()), "{good}");
        }
    }
}
