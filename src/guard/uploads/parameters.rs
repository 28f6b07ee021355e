//! Values with parameters, as in `form-data; name="file"` (RFC 2045 §5.1, RFC 2183): read in the one way in which all
//! readers agree, or not at all.

use smallvec::SmallVec;

/// A value and its parameters, as written.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// What stands in front of the first semicolon.
    pub value: &'a [u8],
    /// Names and values without quotes; backslashes are not resolved.
    all: SmallVec<[(&'a [u8], &'a [u8]); 4]>,
}

/// Readers would disagree: a parameter twice, or text that is no parameter.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl<'a> Parameters<'a> {
    /// Reads a field's value.
    pub fn parse(field: &'a [u8]) -> Result<Self, Ambiguous> {
        let end = field.iter().position(|b| *b == b';').unwrap_or(field.len());
        let (value, mut rest) = field.split_at(end);
        let mut found = Self { value: value.trim_ascii(), all: SmallVec::new() };
        while let Some(parameter) = rest.strip_prefix(b";") {
            let parameter = trim_start(parameter);
            let equals = parameter.iter().position(|b| !is_token(*b)).unwrap_or(parameter.len());
            let (name, after) = parameter.split_at(equals);
            let after = after.strip_prefix(b"=").filter(|_| !name.is_empty()).ok_or(Ambiguous)?;
            let (value, after) = read_value(after)?;
            if found.get(name).is_some() {
                return Err(Ambiguous);
            }
            found.all.push((name, value));
            rest = trim_start(after);
        }
        if rest.is_empty() { Ok(found) } else { Err(Ambiguous) }
    }

    /// The value of a parameter, whose name may be in any case.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        let found = self.all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_ref()));
        found.map(|(_, value)| *value)
    }

    /// Names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.all.iter().map(|(name, _)| *name)
    }
}

/// A token, or what stands between quotes; and what follows.
fn read_value(text: &[u8]) -> Result<(&[u8], &[u8]), Ambiguous> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|b| !is_token(*b)).unwrap_or(text.len());
        return if end > 0 { Ok(text.split_at(end)) } else { Err(Ambiguous) };
    };
    let mut at = 0;
    loop {
        match quoted.get(at) {
            None => return Err(Ambiguous),
            Some(b'"') => return Ok((&quoted[..at], &quoted[at + 1..])),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// RFC 9110 §5.6.2.
pub fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[blank..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every common client's way of writing must be read as it is meant.
    #[test]
    fn parameters_are_read() {
        let field = b"form-data; name=\"a;b\" ;FileName=\"x \\\"y\\\".png\"; size=12";
        let read = Parameters::parse(field).expect("reads");
        assert_eq!(read.value, b"form-data");
        assert_eq!(read.get("name"), Some(&b"a;b"[..]));
        assert_eq!(read.get("filename"), Some(&b"x \\\"y\\\".png"[..]));
        assert_eq!(read.get("size"), Some(&b"12"[..]));
        assert_eq!(read.get("other"), None);
    }

    /// Where two readers could find different names, neither may be believed.
    #[test]
    fn ambiguous_parameters_are_refused() {
        for field in [
            "a; name=x; name=y",
            "a; name=x; NAME=y",
            "a; name=\"x",
            "a; name=\"x\\\"",
            "a; name=\"x\"y",
            "a; name=x y",
            "a; name = x",
            "a; name",
            "a; name=",
            "a; =x",
            "a;",
            "a; ;name=x",
            "a; name=x,b",
        ] {
            assert_eq!(Parameters::parse(field.as_bytes()), Err(Ambiguous), "{field}");
        }
    }
}
