//! `${NAME}`, `${NAME:-default}` and `$$` in scalars, after the YAML was parsed: a value can't become structure.

use std::io::Read;

use super::tree::Source;

/// How the environment is asked; passed in, so that tests need not touch the process's own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A default may hold a variable in turn; deeper than this is a mistake.
const NESTED: usize = 8;

/// The most that is read from a file named by a `NAME_FILE` variable, in bytes.
const SECRET_FILE_MAX: u64 = 64 * 1024;

/// A text with its variables replaced.
#[derive(Debug, PartialEq)]
pub(super) struct Expanded {
    pub text: String,
    pub source: Source,
    /// The variables that gave a value, as they are named in the environment.
    pub names: Vec<String>,
}

/// Why a text can't be expanded. Holds names and places, never values.
#[derive(Debug, PartialEq)]
pub(super) struct Unresolved {
    pub message: String,
    pub remedy: String,
}

impl Unresolved {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// Replaces the variables in a text. A `$` that starts neither `${` nor `$$` stays, so `^/api$` needs no escape.
pub(super) fn expand(raw: &str, env: Lookup<'_>) -> Result<Expanded, Unresolved> {
    let mut out =
        Expanded { text: String::with_capacity(raw.len()), source: Source::Written, names: Vec::new() };
    expand_into(&mut out, raw, env, 0)?;
    Ok(out)
}

fn expand_into(out: &mut Expanded, raw: &str, env: Lookup<'_>, depth: usize) -> Result<(), Unresolved> {
    if depth > NESTED {
        return Err(Unresolved::new("variables are nested too deeply", format!("at most {NESTED} levels")));
    }
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('$') {
        out.text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing_brace(after).ok_or_else(|| {
                Unresolved::new("`${` is not closed", "add the `}`, or write `$${` for the text itself")
            })?;
            let (inner, tail) = after.split_at(end);
            replace(out, inner, env, depth)?;
            rest = tail.strip_prefix('}').unwrap_or(tail);
        } else {
            out.text.push('$');
            rest = after;
        }
    }
    out.text.push_str(rest);
    Ok(())
}

/// Where the `}` stands that closes a variable, past those of variables in its default.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0usize;
    let mut before = b' ';
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if before == b'$' => open += 1,
            b'}' if open == 0 => return Some(index),
            b'}' => open -= 1,
            _ => {}
        }
        before = byte;
    }
    None
}

/// Replaces one variable, given what stands between its braces.
fn replace(out: &mut Expanded, inner: &str, env: Lookup<'_>, depth: usize) -> Result<(), Unresolved> {
    let name_end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(name_end);
    let default = rest.strip_prefix(":-");
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || (default.is_none() && !rest.is_empty())
    {
        let remedy = "write ${NAME}, ${NAME:-default}, or $${ for the text itself";
        return Err(Unresolved::new("`${` is not followed by a variable's name", remedy));
    }
    if let Some((text, source, name)) = look_up(name, default.is_some(), env)? {
        out.text.push_str(&text);
        out.source = out.source.max(source);
        out.names.push(name);
        return Ok(());
    }
    let Some(default) = default else {
        let remedy =
            format!("set {name}, or {name}_FILE to a file that holds it, or write ${{{name}:-default}}");
        return Err(Unresolved::new(format!("environment variable {name} is not set"), remedy));
    };
    out.source = out.source.max(Source::Default);
    expand_into(out, default, env, depth + 1)
}

/// The value of a variable, or of the file that `NAME_FILE` points at. Compose files hand on unset variables as
/// empty ones, so an empty value counts only where nothing else is given.
fn look_up(
    name: &str,
    has_default: bool,
    env: Lookup<'_>,
) -> Result<Option<(String, Source, String)>, Unresolved> {
    let value = env(name);
    if let Some(text) = value.as_deref().filter(|text| !text.is_empty()) {
        return Ok(Some((text.to_owned(), Source::Environment, name.to_owned())));
    }
    let file_name = format!("{name}_FILE");
    if let Some(file) = env(&file_name).filter(|file| !file.is_empty()) {
        return Ok(Some((read_secret(&file, &file_name)?, Source::SecretFile, file_name)));
    }
    Ok(value.filter(|_| !has_default).map(|text| (text, Source::Environment, name.to_owned())))
}

/// A secret's file without the newline that editors put at the end.
fn read_secret(file: &str, variable: &str) -> Result<String, Unresolved> {
    let unreadable = |why: String| {
        Unresolved::new(
            format!("the file that {variable} names can't be read: {why}"),
            format!("{variable} must be the path of a small text file that this process may read"),
        )
    };
    let opened = std::fs::File::open(file).map_err(|e| unreadable(e.to_string()))?;
    let mut text = String::new();
    opened.take(SECRET_FILE_MAX + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if text.len() as u64 > SECRET_FILE_MAX {
        return Err(unreadable(format!("it holds more than {SECRET_FILE_MAX} bytes")));
    }
    let trimmed = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t));
    Ok(trimmed.map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".into()),
            "PORT" => Some("5432".into()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".into()),
            _ => None,
        }
    }

    fn text(raw: &str) -> String {
        expand(raw, &env).map(|e| e.text).expect("expands")
    }

    /// The forms that people know from Compose files.
    #[test]
    fn variables_and_defaults_are_replaced() {
        assert_eq!(text("tcp://${HOST}:${PORT}/x"), "tcp://db:5432/x");
        assert_eq!(text("${NONE:-8080}"), "8080");
        assert_eq!(text("${NONE:-}"), "");
        assert_eq!(text("${HOST:-other}"), "db");
        assert_eq!(text("${NONE:-${HOST:-x}}:1"), "db:1");
        assert_eq!(text("${NONE:-{\"a\":1}"), "{\"a\":1");
    }

    /// Compose hands on an unset variable as an empty one: the default has to hold then too.
    #[test]
    fn empty_counts_as_unset_where_there_is_a_default() {
        assert_eq!(text("${EMPTY:-d}"), "d");
        assert_eq!(
            expand("${EMPTY}", &env).map(|e| (e.text, e.source)),
            Ok((String::new(), Source::Environment))
        );
    }

    /// Regular expressions end in `$`; prices start with it.
    #[test]
    fn other_dollars_stay() {
        assert_eq!(text("^/api$"), "^/api$");
        assert_eq!(text("$5 $NAME"), "$5 $NAME");
        assert_eq!(text("$${HOST} $$$$"), "${HOST} $$");
    }

    /// A value from outside must not reach for other variables.
    #[test]
    fn values_are_not_expanded_again() {
        assert_eq!(text("${TRICK}"), "${HOST}");
    }

    /// The operator reads which variable to set; the default, which may be a secret, is not repeated.
    #[test]
    fn errors_name_the_variable() {
        let error = expand("a ${NONE}", &env).expect_err("unset");
        assert_eq!(error.message, "environment variable NONE is not set");
        assert!(error.remedy.contains("NONE_FILE") && error.remedy.contains("${NONE:-default}"));
        for broken in
            ["${", "${HOST", "${}", "${HOST:?x}", "${HOST-x}", "${1A}", "${ HOST }", "${HOST:-${PORT}"]
        {
            let error = expand(broken, &env).expect_err(broken);
            assert!(error.message.starts_with("`${` is not"), "{broken}: {error:?}");
        }
        let deep = format!("{}x{}", "${NONE:-".repeat(5_000), "}".repeat(5_000));
        assert!(expand(&deep, &env).is_err());
    }

    /// Container platforms mount secrets as files; the newline at the end is the editor's.
    #[test]
    fn a_file_stands_in_for_an_unset_variable() {
        let dir = std::env::temp_dir().join(format!("tidegate-interpolate-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let file = dir.join("token");
        std::fs::write(&file, "s3cret\n\n").expect("file");
        let path = file.to_string_lossy().into_owned();
        let env = |name: &str| match name {
            "TOKEN_FILE" | "BOTH_FILE" => Some(path.clone()),
            "BOTH" => Some("direct".into()),
            "GONE_FILE" => Some("/nowhere/at/all".into()),
            _ => None,
        };
        let found = expand("${TOKEN}", &env).expect("read");
        assert_eq!((found.text.as_str(), found.source), ("s3cret\n", Source::SecretFile));
        assert_eq!(found.names, ["TOKEN_FILE"]);
        assert_eq!(expand("${TOKEN:-d}", &env).map(|e| e.text), Ok("s3cret\n".into()));
        assert_eq!(expand("${BOTH}", &env).map(|e| e.text), Ok("direct".into()));
        assert!(expand("${GONE:-d}", &env).expect_err("unreadable").message.contains("GONE_FILE"));
        std::fs::write(&file, vec![b'x'; 70_000]).expect("file");
        assert!(expand("${TOKEN}", &env).expect_err("large").message.contains("more than"));
        std::fs::remove_dir_all(&dir).expect("clean up");
    }

    proptest! {
        /// A start must not end in a panic, whatever the file says.
        #[test]
        fn nothing_panics(raw in "[${}:\\-A-Zé \n]{0,40}") {
            let _ = expand(&raw, &env);
        }

        /// A text without variables is the text; doubling its dollars says it literally.
        #[test]
        fn doubled_dollars_are_literal(raw in ".{0,40}") {
            prop_assert_eq!(expand(&raw.replace('$', "$$"), &env).map(|e| e.text), Ok(raw));
        }
    }
}
