//! YAML text to a tree. A strict subset: one document, a mapping at the top, keys that are names, no tags, no null.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::error::{ConfigError, ConfigErrors};
use super::interpolate::{Lookup, expand};
use super::path::Path;
use super::tree::{Key, Node, Origin, Scalar, Value};

/// Mappings and lists inside each other; no config needs a tenth of it, and trees are walked by recursion.
const DEPTH_MAX: usize = 64;

/// Nodes in a tree, copies by alias included: a few nested aliases would make billions.
const NODES_MAX: usize = 100_000;

/// Parses a config file and puts the environment in.
///
/// `file` names the text in errors. All errors that don't hide others are reported, not only the first.
pub fn parse(text: &str, file: &str, env: Lookup<'_>) -> Result<Node, ConfigErrors> {
    let mut builder = Builder::new(file, env);
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.fail(broken_yaml(&error, text, &builder.file)))?;
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let error = builder.error(line, "a second YAML document starts here");
                return Err(builder.fail(error.remedy("keep one document: remove the `---`")));
            }
        }
        if let Err(error) = builder.event(event, line) {
            return Err(builder.fail(error));
        }
    }
    builder.finish()
}

fn broken_yaml(error: &ScanError, text: &str, file: &Arc<str>) -> ConfigError {
    let line = error.marker().line();
    let origin = Origin { file: file.clone(), line: u32::try_from(line).unwrap_or(u32::MAX), env: None };
    let broken = ConfigError::new("", &origin, format!("not valid YAML: {}", error.info()));
    let near = || text.lines().skip(line.saturating_sub(2)).take(2);
    if near().any(|l| l.trim_start_matches(' ').starts_with('\t')) {
        broken.remedy("indent with spaces, not tabs")
    } else if near().any(|l| l.contains("${")) {
        broken.remedy("put the value that holds ${…} in double quotes")
    } else {
        broken
    }
}

/// A mapping or list whose end has not been seen yet.
struct Frame {
    content: Content,
    origin: Origin,
    anchor: usize,
}

enum Content {
    Seq(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, lines: HashMap<Arc<str>, u32> },
}

struct Builder<'a> {
    file: Arc<str>,
    env: Lookup<'a>,
    frames: Vec<Frame>,
    root: Option<Node>,
    /// Finished nodes with an anchor, and how many nodes each is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    errors: ConfigErrors,
}

impl<'a> Builder<'a> {
    fn new(file: &str, env: Lookup<'a>) -> Self {
        Self {
            file: file.into(),
            env,
            frames: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            errors: ConfigErrors::default(),
        }
    }

    /// Takes one event; an error is returned if nothing after it could be understood, else it is noted.
    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), ConfigError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                if self.at_key() {
                    self.key(&text, style, line)
                } else {
                    self.scalar(&text, style, anchor, line)
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                self.open(Content::Seq(Vec::new()), anchor, line)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                self.open(
                    Content::Map { entries: Vec::new(), key: None, lines: HashMap::new() },
                    anchor,
                    line,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(line),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn at_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { content: Content::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: &str, style: ScalarStyle, line: u32) -> Result<(), ConfigError> {
        if style == ScalarStyle::Plain && !is_name(text) {
            let error = self.error(line, format!("the key {text} is not a name"));
            self.errors.push(error.remedy(format!("put it in quotes if it is meant: {text:?}")));
        } else if text == "<<" {
            let error = self.error(line, "merge keys (`<<`) are not supported");
            self.errors.push(error.remedy("a route inherits every key of the top level already"));
        } else if text.contains("${") {
            let error = self.error(line, "variables are replaced in values, not in keys");
            self.errors.push(error.remedy("write the key out"));
        }
        let name: Arc<str> = text.into();
        let origin = self.origin(line);
        let mut first = None;
        if let Some(Frame { content: Content::Map { key, lines, .. }, .. }) = self.frames.last_mut() {
            first = lines.insert(name.clone(), line);
            *key = Some(Key { text: name.clone(), origin });
        }
        if let Some(first) = first {
            let error = ConfigError::new(
                self.path(),
                &self.origin(line),
                format!("duplicate key, on line {line} and before on line {first}"),
            );
            self.errors.push(error.remedy("keep one of them"));
        }
        Ok(())
    }

    fn scalar(&mut self, raw: &str, style: ScalarStyle, anchor: usize, line: u32) -> Result<(), ConfigError> {
        let plain = style == ScalarStyle::Plain;
        if plain && is_null(raw) {
            if self.frames.is_empty() {
                // A file of comments below `---`.
                return self.attach(Node::empty(self.origin(line)), anchor, 1);
            }
            let error = self.error(line, "no value (null)");
            self.errors.push(error.remedy("write `off` to disable it, or remove the key"));
        }
        let mut origin = self.origin(line);
        let scalar = match expand(raw, self.env) {
            Ok(expanded) => {
                if !expanded.names.is_empty() {
                    origin.env = Some(expanded.names.join(", ").into());
                }
                Scalar { text: expanded.text.into(), plain, source: expanded.source }
            }
            Err(unresolved) => {
                let error = self.error(line, unresolved.message).remedy(unresolved.remedy);
                self.errors.push(error);
                return self.attach(Node::text("", origin), anchor, 1);
            }
        };
        self.attach(Node { value: Value::Scalar(scalar), origin }, anchor, 1)
    }

    fn open(&mut self, content: Content, anchor: usize, line: u32) -> Result<(), ConfigError> {
        if self.at_key() {
            return Err(self.error(line, "a key must be a name, not a list or a mapping"));
        }
        if self.frames.len() >= DEPTH_MAX {
            return Err(self.error(line, format!("more than {DEPTH_MAX} levels of mappings and lists")));
        }
        let line = match self.frames.last() {
            Some(Frame { content: Content::Map { key: Some(key), .. }, .. }) => key.origin.line,
            _ => line,
        };
        self.frames.push(Frame { content, origin: self.origin(line), anchor });
        Ok(())
    }

    fn close(&mut self, line: u32) -> Result<(), ConfigError> {
        let Some(Frame { content, origin, anchor }) = self.frames.pop() else {
            return Err(self.error(line, "not valid YAML: an end without a start"));
        };
        let value = match content {
            Content::Seq(items) => Value::Seq(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        self.attach(Node { value, origin }, anchor, 1)
    }

    fn alias(&mut self, anchor: usize, line: u32) -> Result<(), ConfigError> {
        if self.at_key() {
            return Err(self.error(line, "a key must be a name, not an alias").remedy("write the key out"));
        }
        let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
            return Err(self.error(line, "an alias to a value that is not complete yet"));
        };
        self.attach(node, 0, size)
    }

    /// Puts a finished node, `size` nodes that were not counted yet, where it belongs.
    fn attach(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), ConfigError> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > NODES_MAX {
            let error = self
                .error(node.origin.line, format!("more than {NODES_MAX} values, copies by alias included"));
            return Err(error.remedy("use fewer aliases"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        match self.frames.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::Seq(items)) => items.push(node),
            Some(Content::Map { entries, key, .. }) => entries.extend(key.take().map(|key| (key, node))),
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, line: u32) {
        if tagged {
            let error = self.error(line, "YAML tags (`!…`) are not supported");
            self.errors.push(error.remedy("remove the tag: the key decides the type"));
        }
    }

    fn finish(self) -> Result<Node, ConfigErrors> {
        let origin = Origin { file: self.file.clone(), line: 1, env: None };
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let root = self.root.unwrap_or_else(|| Node::empty(origin));
        match root.value {
            Value::Map(_) => Ok(root),
            _ => Err(ConfigError::new("", &root.origin, "a config is a mapping of keys to values")
                .remedy("start with a line such as `upstream: http://127.0.0.1:3000`")
                .into()),
        }
    }

    /// All that was noted, and the error that ends the parse.
    fn fail(&self, last: ConfigError) -> ConfigErrors {
        let mut errors = self.errors.clone();
        errors.push(last);
        errors
    }

    fn error(&self, line: u32, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path(), &self.origin(line), message)
    }

    fn origin(&self, line: u32) -> Origin {
        Origin { file: self.file.clone(), line, env: None }
    }

    /// The key path of the value that is being read.
    fn path(&self) -> String {
        render(&self.frames, &Path::Root(""))
    }
}

fn render(frames: &[Frame], parent: &Path<'_>) -> String {
    let Some((frame, inner)) = frames.split_first() else { return parent.to_string() };
    match &frame.content {
        Content::Seq(items) => render(inner, &Path::Item(parent, items.len())),
        Content::Map { key: Some(key), .. } => render(inner, &Path::Key(parent, &key.text)),
        Content::Map { key: None, .. } => parent.to_string(),
    }
}

fn count(node: &Node) -> usize {
    let below = node.items().iter().map(count).sum::<usize>();
    1 + below + node.entries().iter().map(|(_, value)| count(value)).sum::<usize>()
}

/// Null in YAML's core schema (YAML 1.2.2 §10.3.2).
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Whether a plain key is text in YAML's core schema, not a null, a truth value or a number.
fn is_name(text: &str) -> bool {
    let number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
    let truth = text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    !is_null(text) && !truth && !number
}

#[cfg(test)]
mod tests;
