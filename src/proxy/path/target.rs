//! Takes a request target apart (RFC 9112 §3.2).

/// Path and query (without its `?`) of a target in origin or absolute form, unparsed.
///
/// An absolute form loses its scheme and authority, which head hygiene compares with `Host`; an empty path is the
/// root (RFC 9110 §4.2.3). Any other form comes back as its own path, which no normal path is.
pub fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let rest = match after_scheme(target) {
        Some(rest) => {
            let authority = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            rest.get(authority..).unwrap_or_default()
        }
        None => target,
    };
    let mut parts = rest.splitn(2, |b| *b == b'?');
    match (parts.next().unwrap_or_default(), parts.next()) {
        (b"", query) if rest.len() < target.len() => (b"/", query),
        parts => parts,
    }
}

/// What follows `http://` or `https://`, in any case.
pub(crate) fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    let after = |scheme: &[u8]| match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
        _ => None,
    };
    after(b"http://").or_else(|| after(b"https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_form_meets_the_same_routes_as_a_path() {
        let cases: [(&str, &str, Option<&str>); 9] = [
            ("/a/b", "/a/b", None),
            ("/a?x=1?y", "/a", Some("x=1?y")),
            ("/?", "/", Some("")),
            ("/http://h/x", "/http://h/x", None),
            ("http://h:80/a?x", "/a", Some("x")),
            ("HTTPS://h", "/", None),
            ("http://h?x=/y", "/", Some("x=/y")),
            ("*", "*", None),
            ("", "", None),
        ];
        for (target, path, query) in cases {
            let expected = (path.as_bytes(), query.map(str::as_bytes));
            assert_eq!(split_target(target.as_bytes()), expected, "{target}");
        }
    }
}
