//! What a running server may take over from settings that were read again.

use super::{Config, ConfigError, ConfigErrors, Node, Value};

/// The keys that may change, besides those that a route may override. All others are fixed when the server starts: its
/// sockets, threads, logs and caps on connections are made from them once.
const CHANGEABLE: [&str; 15] = [
    "bans",
    "reputation",
    "upstream",
    "upstreams",
    "upstream_defaults",
    "name_servers",
    "breaker",
    "retries",
    "client",
    "paths",
    "hygiene",
    "rate_limit_status",
    "watch",
    "audit",
    "admin.token",
];

impl Config {
    /// Refuses settings that differ from the `running` ones where a running server can't follow.
    ///
    /// # Errors
    /// One for each such key.
    pub fn follows(&self, running: &Config) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        compare("", &running.server, &self.server, &mut errors);
        errors.in_order().into_result()
    }
}

fn compare(path: &str, running: &Node, new: &Node, errors: &mut ConfigErrors) {
    if CHANGEABLE.contains(&path) {
        return;
    }
    if let (Value::Map(before), Value::Map(after)) = (&running.value, &new.value) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for (key, after) in after {
            match running.get(&key.text) {
                Some(before) => compare(&below(&key.text), before, after, errors),
                None => errors.push(fixed(&below(&key.text), after)),
            }
        }
        let gone = before.iter().filter(|(key, _)| new.get(&key.text).is_none());
        gone.for_each(|(key, before)| errors.push(fixed(&below(&key.text), before)));
    } else if !same(running, new) {
        errors.push(fixed(path, new));
    }
}

fn fixed(path: &str, at: &Node) -> ConfigError {
    let error = ConfigError::new(path, &at.origin, "can't change while the server runs");
    error.remedy("restart it, or put back what it runs with")
}

/// Whether two values say the same, wherever they were written.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
        (Value::Seq(a), Value::Seq(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;

    fn config(text: &str, flags: &Overrides) -> Config {
        let env = |name: &str| (name == "LISTEN").then(|| "127.0.0.1:1".to_owned());
        Config::from_text(text, "t.yaml", flags, &env).unwrap_or_else(|e| panic!("{e}"))
    }

    fn refused(before: &str, after: &str) -> String {
        let flags = Overrides::default();
        config(after, &flags).follows(&config(before, &flags)).err().map_or(String::new(), |e| e.to_string())
    }

    /// A key that is silently not taken over leaves an operator with settings that nobody reads.
    #[test]
    fn what_is_fixed_is_named_with_its_line() {
        let told =
            refused("threads: 1\n", "\nthreads: 2\nconnections:\n  max: 7\nlog: {access: {to: off}}\n");
        let lines: Vec<_> =
            told.lines().map(|line| line.split(" can't").next().unwrap_or_default()).collect();
        assert_eq!(lines, ["t.yaml:2: threads:", "t.yaml:4: connections.max:", "t.yaml:5: log.access.to:"]);
        assert!(told.contains("restart it"), "{told}");
        let left_out = refused("drain: 3s\n", "");
        assert!(left_out.contains("drain: can't change"), "{left_out}");
    }

    /// What a server can follow must not need a restart; nor what is only written in another way or place.
    #[test]
    fn the_rest_may_change() {
        let after = "upstream: http://127.0.0.1:2\nclient: {device_header: x-id}\ntimeouts: {first_byte: 1s}\n\
                     admin: {token: abc}\nlimits: {ai: off}\nroutes: [{name: a, match: {paths: [/a]}}]\n";
        assert_eq!(refused("upstream: http://127.0.0.1:1\n", after), "");
        assert_eq!(refused("", "threads: '0'\nlisten: 127.0.0.1:1\n"), "");
    }

    /// A flag stays in force however the file changes.
    #[test]
    fn flags_stand_over_the_file() {
        let flags = Overrides { listen: Some("127.0.0.1:3".into()), ..Overrides::default() };
        let (before, after) = (config("", &flags), config("listen: 127.0.0.1:4\n", &flags));
        assert_eq!(after.follows(&before), Ok(()));
    }
}
