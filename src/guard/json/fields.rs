//! Field rules: which places of a body are wanted, compiled into an automaton that walks along with the scanner.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::fold::{first_letter, fold, folds_to, longest_spelling};

/// Members that lead on from a place where text is expected: parts (`{"type": "text", "text": …}`) and
/// messages or results that hold parts again (`{"role": …, "content": …}`).
const TEXT_MEMBERS: [&str; 2] = ["text", "content"];

/// More states than any sensible set of rules needs; wildcards multiply them.
const MAX_NODES: usize = 4096;

/// What a rule takes from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Text in any of the shapes that chat APIs use: the string at the place, and every string that is reached
    /// from it through array elements and members named `text` or `content`.
    Text,
    /// The string, number, bool or null at the place; nothing if an object or array stands there.
    Value,
}

/// One wanted place.
///
/// A pattern is a JSON pointer (RFC 6901: `~1` for `/`, `~0` for `~`, a number names a member or an element)
/// in which a segment `*` stands for any member or element. Names match after unescaping and whatever their letter
/// case: some upstreams (Go's `encoding/json` among them) read `Message` where they mean `message`.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'p> {
    /// Where, for example `/messages/*/content`; empty for the whole body.
    pub pattern: &'p str,
    /// What to take from there.
    pub kind: RuleKind,
    /// The caller's name for the rule, handed back with each field found.
    pub tag: u16,
}

impl<'p> Rule<'p> {
    /// A rule for text.
    pub fn text(pattern: &'p str, tag: u16) -> Self {
        Self { pattern, kind: RuleKind::Text, tag }
    }

    /// A rule for a scalar.
    pub fn value(pattern: &'p str, tag: u16) -> Self {
        Self { pattern, kind: RuleKind::Value, tag }
    }
}

/// Why a set of rules can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Neither empty nor starting with `/`.
    NoSlash(String),
    /// Two slashes in a row, or one at the end: a typing slip that would silently match nothing.
    EmptySegment(String),
    /// `*` beside other characters in one segment.
    PartialWildcard(String),
    /// `~` not followed by 0 or 1.
    BadTilde(String),
    /// The rules need more than 4096 states together.
    TooComplex,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash(p) => write!(f, "field pattern `{p}` must start with `/`"),
            Self::EmptySegment(p) => write!(f, "field pattern `{p}` has an empty segment"),
            Self::PartialWildcard(p) => write!(f, "field pattern `{p}` may use `*` only as a whole segment"),
            Self::BadTilde(p) => {
                write!(f, "field pattern `{p}` may use `~` only in `~0` (for ~) or `~1` (for /)")
            }
            Self::TooComplex => write!(f, "the field patterns have too many wildcards to be combined"),
        }
    }
}

impl std::error::Error for PatternError {}

/// A place as the automaton knows it; an index into its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::guard) struct NodeId(u16);

/// The place below which no rule matches.
const NOWHERE: NodeId = NodeId(0);
/// The place of the whole body.
const ROOT: NodeId = NodeId(1);

struct Node {
    /// Those that a rule names, in the order of [`letter`].
    members: Box<[Member]>,
    /// Where in `members` those of each letter begin, and those of the letter before it end: few names are compared.
    letters: [u16; LETTERS + 1],
    other_member: NodeId,
    /// By index, where a rule names it.
    elements: Box<[(u32, NodeId)]>,
    other_element: NodeId,
    /// Tags of the rules that take any scalar here.
    values: Box<[u16]>,
    /// Tags of the rules that take a string here.
    texts: Box<[u16]>,
}

struct Member {
    /// Folded.
    name: Box<str>,
    /// Bytes of its longest spelling.
    longest: usize,
    place: NodeId,
}

/// What [`letter`] tells apart.
const LETTERS: usize = 32;

/// The letter that a name begins with, whatever its case; other characters share theirs.
#[inline]
fn letter(name: &[u8]) -> usize {
    usize::from(first_letter(name)) % LETTERS
}

/// Compiled rules; immutable, so that one serves all threads.
pub struct FieldRules {
    /// Never shorter than two; every id inside points into it.
    nodes: Box<[Node]>,
}

impl FieldRules {
    /// Compiles rules; a field that several match is handed out once for each, in the order given.
    ///
    /// # Errors
    /// Names the first pattern that can't be read.
    pub fn compile<'p>(rules: impl IntoIterator<Item = Rule<'p>>) -> Result<Self, PatternError> {
        let paths = rules.into_iter().map(Path::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { nodes: Builder::new(&paths).build()? })
    }

    pub(in crate::guard) fn root(&self) -> NodeId {
        ROOT
    }

    /// Where the member `name` (unescaped) of the object at `node` stands; and its folded name, if a rule names it.
    #[inline]
    pub(in crate::guard) fn member(&self, node: NodeId, name: &[u8]) -> (NodeId, Option<&str>) {
        if node == NOWHERE {
            return (NOWHERE, None);
        }
        let node = &self.nodes[usize::from(node.0)];
        let letter = letter(name);
        let [begin, end] = [node.letters[letter], node.letters[letter + 1]].map(usize::from);
        let fits = |member: &&Member| {
            (member.name.len()..=member.longest).contains(&name.len()) && folds_to(name, &member.name)
        };
        match node.members[begin..end].iter().find(fits) {
            Some(member) => (member.place, Some(&member.name)),
            None => (node.other_member, None),
        }
    }

    /// Where element `index` of the array at `node` stands.
    #[inline]
    pub(in crate::guard) fn element(&self, node: NodeId, index: u32) -> NodeId {
        let node = &self.nodes[usize::from(node.0)];
        let named = node.elements.iter().find(|(element, _)| *element == index);
        named.map_or(node.other_element, |&(_, next)| next)
    }

    /// Tags that want a string at `node`.
    #[inline]
    pub(in crate::guard) fn wanting_string(&self, node: NodeId) -> impl Iterator<Item = u16> {
        let node = &self.nodes[usize::from(node.0)];
        node.texts.iter().chain(&node.values).copied()
    }

    /// Tags that want another scalar at `node`.
    #[inline]
    pub(super) fn wanting_scalar(&self, node: NodeId) -> impl Iterator<Item = u16> {
        self.nodes[usize::from(node.0)].values.iter().copied()
    }
}

/// A rule with its pattern taken apart.
struct Path {
    segments: Vec<Segment>,
    kind: RuleKind,
    tag: u16,
}

enum Segment {
    Any,
    /// `member` is folded.
    Named {
        member: String,
        element: Option<u32>,
    },
}

impl Path {
    fn parse(rule: Rule<'_>) -> Result<Self, PatternError> {
        let pattern = rule.pattern;
        let mut segments = Vec::new();
        if !pattern.is_empty() {
            let inner = pattern.strip_prefix('/').ok_or_else(|| PatternError::NoSlash(pattern.into()))?;
            for segment in inner.split('/') {
                segments.push(Segment::parse(segment, pattern)?);
            }
        }
        Ok(Self { segments, kind: rule.kind, tag: rule.tag })
    }
}

impl Segment {
    fn parse(segment: &str, pattern: &str) -> Result<Self, PatternError> {
        if segment == "*" {
            return Ok(Self::Any);
        }
        if segment.is_empty() {
            return Err(PatternError::EmptySegment(pattern.into()));
        }
        if segment.contains('*') {
            return Err(PatternError::PartialWildcard(pattern.into()));
        }
        if segment.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err(PatternError::BadTilde(pattern.into()));
        }
        let member = segment.replace("~1", "/").replace("~0", "~");
        // RFC 6901 §4: an index has no leading zero.
        let element = member.parse().ok().filter(|index: &u32| index.to_string() == member);
        Ok(Self::Named { member: fold(&member), element })
    }
}

/// How far along one rule's path a place is: the rule, and the segments matched.
type Position = (usize, usize);

/// One step down. `None` stands for whatever no rule names at this place.
#[derive(Clone, Copy)]
enum Step<'s> {
    Member(Option<&'s str>),
    Element(Option<u32>),
}

/// Subset construction: each set of positions that a walk can be in becomes one node.
struct Builder<'r> {
    paths: &'r [Path],
    known: HashMap<Vec<Position>, NodeId>,
    /// By node id.
    sets: Vec<Vec<Position>>,
}

impl<'r> Builder<'r> {
    fn new(paths: &'r [Path]) -> Self {
        let root: Vec<_> = (0..paths.len()).map(|path| (path, 0)).collect();
        // With no rules, root and nowhere are the same set; the root still gets its own node.
        Self { paths, known: HashMap::from([(Vec::new(), NOWHERE)]), sets: vec![Vec::new(), root] }
    }

    fn build(mut self) -> Result<Box<[Node]>, PatternError> {
        let mut nodes = Vec::new();
        while let Some(set) = self.sets.get(nodes.len()).cloned() {
            nodes.push(self.node(&set)?);
        }
        Ok(nodes.into())
    }

    fn node(&mut self, set: &[Position]) -> Result<Node, PatternError> {
        let paths = self.paths;
        let (mut names, mut indices) = (BTreeSet::new(), BTreeSet::new());
        let (mut values, mut texts) = (Vec::new(), Vec::new());
        for &(path, matched) in set {
            let path = &paths[path];
            match (path.segments.get(matched), path.kind) {
                (Some(Segment::Any), _) => {}
                (Some(Segment::Named { member, element }), _) => {
                    names.insert(member.as_str());
                    indices.extend(*element);
                }
                (None, RuleKind::Value) => values.push(path.tag),
                (None, RuleKind::Text) => {
                    texts.push(path.tag);
                    names.extend(TEXT_MEMBERS);
                }
            }
        }
        let mut members = Vec::new();
        for name in names {
            let place = self.follow(set, Step::Member(Some(name)))?;
            members.push(Member { name: name.into(), longest: longest_spelling(name), place });
        }
        members.sort_by_key(|member| letter(member.name.as_bytes()));
        let before = |bound| members.partition_point(|member| letter(member.name.as_bytes()) < bound) as u16;
        let mut elements = Vec::new();
        for index in indices {
            elements.push((index, self.follow(set, Step::Element(Some(index)))?));
        }
        Ok(Node {
            letters: std::array::from_fn(before),
            members: members.into(),
            other_member: self.follow(set, Step::Member(None))?,
            elements: elements.into(),
            other_element: self.follow(set, Step::Element(None))?,
            values: values.into(),
            texts: texts.into(),
        })
    }

    /// The node that `step` leads to, made if it is new.
    fn follow(&mut self, set: &[Position], step: Step<'_>) -> Result<NodeId, PatternError> {
        let next: Vec<_> = set.iter().filter_map(|&position| self.advance(position, step)).collect();
        if let Some(&node) = self.known.get(&next) {
            return Ok(node);
        }
        let id = u16::try_from(self.sets.len()).map_err(|_| PatternError::TooComplex)?;
        if self.sets.len() >= MAX_NODES {
            return Err(PatternError::TooComplex);
        }
        self.sets.push(next.clone());
        self.known.insert(next, NodeId(id));
        Ok(NodeId(id))
    }

    fn advance(&self, (path, matched): Position, step: Step<'_>) -> Option<Position> {
        let goes_on = match (self.paths[path].segments.get(matched), step) {
            (Some(Segment::Any), _) => true,
            (Some(Segment::Named { member, .. }), Step::Member(name)) => name == Some(member),
            (Some(Segment::Named { element, .. }), Step::Element(index)) => {
                index.is_some() && index == *element
            }
            (None, _) if self.paths[path].kind == RuleKind::Value => false,
            // Text goes on at the end of its path, through elements and the members of parts.
            (None, Step::Element(_)) => return Some((path, matched)),
            (None, Step::Member(name)) => {
                return name.is_some_and(|name| TEXT_MEMBERS.contains(&name)).then_some((path, matched));
            }
        };
        goes_on.then_some((path, matched + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(pattern: &str) -> PatternError {
        FieldRules::compile([Rule::text(pattern, 0)]).err().unwrap()
    }

    /// A slip in a pattern must stop the start, not leave the field unguarded.
    #[test]
    fn bad_patterns_are_named() {
        assert_eq!(error("message").to_string(), "field pattern `message` must start with `/`");
        assert_eq!(error("/a//b").to_string(), "field pattern `/a//b` has an empty segment");
        assert_eq!(error("/message/"), PatternError::EmptySegment("/message/".into()));
        assert_eq!(error("/"), PatternError::EmptySegment("/".into()));
        assert_eq!(error("/a/**"), PatternError::PartialWildcard("/a/**".into()));
        assert_eq!(error("/msg*"), PatternError::PartialWildcard("/msg*".into()));
        assert_eq!(error("/a~"), PatternError::BadTilde("/a~".into()));
        assert_eq!(error("/a~2b"), PatternError::BadTilde("/a~2b".into()));
    }

    /// Patterns of this kind double the states with each; a config must not take the memory of the machine.
    #[test]
    fn a_set_of_rules_that_explodes_is_refused() {
        let patterns: Vec<String> =
            (0..16).map(|i| format!("{}/a{}", "/*".repeat(i), "/*".repeat(15 - i))).collect();
        let rules = patterns.iter().map(|pattern| Rule::value(pattern, 0));
        assert_eq!(FieldRules::compile(rules).err(), Some(PatternError::TooComplex));
    }

    #[test]
    fn usual_rules_stay_small() {
        let text = ["/messages/*/content", "/message", "/chatInput", "/input", "/contents/*/parts/*/text"];
        let value = ["/model", "/stream", "/max_tokens", "/sessionId"];
        let rules = text.iter().map(|p| Rule::text(p, 1)).chain(value.iter().map(|p| Rule::value(p, 2)));
        assert!(FieldRules::compile(rules).unwrap().nodes.len() < 24);
    }
}
