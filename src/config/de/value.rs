//! A value of the tree as serde sees it: text until a type asks for a number, a switch or a list.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::super::path::Path;
use super::super::secret::SECRET;
use super::super::shown::{HIDDEN, short};
use super::super::toggle::TOGGLE;
use super::super::tree::{Node, Scalar, Source, Value, switch};
use super::access::{Entries, Items, Variant};
use super::fault::{Fault, Wording};

/// What is known over one reading of a tree.
#[derive(Default)]
pub(in crate::config) struct Pass {
    /// Key paths that are treated as not there.
    pub left_out: Vec<String>,
    /// Key paths where a secret was read.
    pub secrets: RefCell<Vec<String>>,
}

/// A value and its place.
#[derive(Clone, Copy)]
pub(in crate::config) struct At<'n> {
    pub node: &'n Node,
    pub path: &'n Path<'n>,
    pub pass: &'n Pass,
    /// Whether the value must not be shown.
    secret: bool,
    /// Whether `off` could stand here, and `on` for an empty mapping.
    toggled: bool,
}

impl<'n> At<'n> {
    pub fn new(node: &'n Node, path: &'n Path<'n>, pass: &'n Pass) -> Self {
        Self { node, path, pass, secret: false, toggled: false }
    }

    /// A value below this one.
    pub fn child<'c>(&self, node: &'c Node, path: &'c Path<'c>) -> At<'c>
    where
        'n: 'c,
    {
        At::new(node, path, self.pass)
    }

    pub fn is_left_out(&self) -> bool {
        !self.pass.left_out.is_empty() && self.pass.left_out.contains(&self.path.to_string())
    }

    /// A message about this value, with the value in it where it may be shown and without it where it may not.
    pub fn with_value(&self, message: String, wording: Wording) -> String {
        let Some(scalar) = self.node.scalar().filter(|_| wording != Wording::Ours) else { return message };
        let shown = short(&scalar.text);
        match wording {
            Wording::Foreign if self.hides(scalar) => "not a valid value".to_owned(),
            _ if self.hides(scalar) => message,
            // A parser that repeats a long value, or one with credentials, is cut short.
            Wording::Foreign if shown.len() != scalar.text.len() + 2 && message.contains(&*scalar.text) => {
                message.replace(&*scalar.text, &shown)
            }
            _ if message.contains(&shown) => message,
            _ => format!("{message}, found {shown}"),
        }
    }

    fn hides(&self, scalar: &Scalar) -> bool {
        self.secret || scalar.source == Source::SecretFile
    }

    fn found(&self) -> String {
        match &self.node.value {
            Value::Scalar(scalar) if self.hides(scalar) => HIDDEN.to_owned(),
            Value::Scalar(scalar) => short(&scalar.text),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Gives an error that has no place yet this one.
    pub fn claim<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.found_at(self))
    }

    /// The value has the wrong form.
    pub fn mismatch(&self, expected: &str) -> Fault {
        self.wrong_form(expected).found_at(self)
    }

    fn wrong_form(&self, expected: &str) -> Fault {
        let off = if self.toggled { " or `off`" } else { "" };
        Fault::complete(format!("expected {expected}{off}, found {}", self.found()))
    }

    pub fn text(&self, expected: &str) -> Result<&'n str, Fault> {
        self.node.scalar().map(|scalar| &*scalar.text).ok_or_else(|| self.mismatch(expected))
    }

    /// A whole number in a range.
    fn integer(&self, least: i128, most: i128) -> Result<i128, Fault> {
        let expected = || match most {
            _ if most == i128::from(u64::MAX) => format!("a whole number of {least} or more"),
            _ if most == i128::from(i64::MAX) => "a whole number".to_owned(),
            _ => format!("a whole number from {least} to {most}"),
        };
        let number = self.node.scalar().and_then(|scalar| scalar.text.trim().parse::<i128>().ok());
        number.filter(|n| (least..=most).contains(n)).ok_or_else(|| self.mismatch(&expected()))
    }

    fn float(&self) -> Result<f64, Fault> {
        let number = self.node.scalar().and_then(|scalar| scalar.text.trim().parse::<f64>().ok());
        number.filter(|n| n.is_finite()).ok_or_else(|| self.mismatch("a number"))
    }

    /// The entries of a mapping; `on` is an empty one where something could be switched off.
    fn entries(&self, expected: &str) -> Result<Entries<'n>, Fault> {
        let on = self.toggled && self.node.switch() == Some(true);
        match &self.node.value {
            Value::Map(entries) => Ok(Entries::new(*self, entries)),
            _ if on => Ok(Entries::new(*self, &[])),
            _ => Err(self.mismatch(expected)),
        }
    }

    /// The items of a list; the text of a variable is cut at its commas, since an environment has no lists.
    fn items(&self) -> Result<Cow<'n, [Node]>, Fault> {
        match &self.node.value {
            Value::Seq(items) => Ok(Cow::Borrowed(items)),
            Value::Scalar(scalar) if scalar.substituted() => {
                let parts = scalar.text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let item = |part: &str| {
                    let scalar = Scalar { text: Arc::from(part), ..scalar.clone() };
                    Node { value: Value::Scalar(scalar), origin: self.node.origin.clone() }
                };
                Ok(parts.map(item).collect())
            }
            Value::Scalar(_) => {
                let remedy = "write [a, b], or one `- value` a line";
                Err(self.wrong_form("a list").remedy(remedy).found_at(self))
            }
            Value::Map(_) => Err(self.mismatch("a list")),
        }
    }

    fn visit_items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let nodes = self.items()?;
        let mut items = Items::new(self, &nodes);
        let value = self.claim(visitor.visit_seq(&mut items))?;
        match items.remaining() {
            0 => Ok(value),
            1 => Err(Fault::complete("a list with 1 value too many").found_at(&self)),
            extra => Err(Fault::complete(format!("a list with {extra} values too many")).found_at(&self)),
        }
    }
}

/// Numbers and switches: parsed from the text, in the range of the type.
macro_rules! integers {
    ($($method:ident $visit:ident $type:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.integer(i128::from($type::MIN), i128::from($type::MAX))?;
            let number = $type::try_from(number).map_err(|_| self.mismatch("a smaller number"))?;
            self.claim(visitor.$visit(number))
        })*
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    /// What an untagged type gets: plain texts are what YAML's core schema says (YAML 1.2.2 §10.3.2).
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(scalar) = self.node.scalar() else {
            return match &self.node.value {
                Value::Map(_) => self.deserialize_map(visitor),
                _ => self.deserialize_seq(visitor),
            };
        };
        let text = &*scalar.text;
        let visited = match text {
            _ if !scalar.plain => visitor.visit_str(text),
            "true" | "True" | "TRUE" => visitor.visit_bool(true),
            "false" | "False" | "FALSE" => visitor.visit_bool(false),
            _ => match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), ..) => visitor.visit_u64(number),
                (_, Ok(number), _) => visitor.visit_i64(number),
                (.., Ok(number)) if number.is_finite() => visitor.visit_f64(number),
                _ => visitor.visit_str(text),
            },
        };
        self.claim(visited)
    }

    integers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.claim(visitor.visit_f64(self.float()?))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let expected = "true or false (on, off, yes and no will do)";
        let text = self.text(expected)?.trim();
        let from_variable = self.node.scalar().is_some_and(Scalar::substituted);
        let value = match text {
            // Usual in environments, too easily a number elsewhere.
            "1" if from_variable => true,
            "0" if from_variable => false,
            _ => switch(text).ok_or_else(|| self.mismatch(expected))?,
        };
        self.claim(visitor.visit_bool(value))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.claim(visitor.visit_str(self.text("a text")?))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.scalar() {
            Some(scalar) if scalar.absent() => self.claim(visitor.visit_none()),
            _ => self.claim(visitor.visit_some(self)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let visited = match name {
            TOGGLE if self.node.switch() == Some(false) => visitor.visit_none(),
            TOGGLE => visitor.visit_newtype_struct(Self { toggled: true, ..self }),
            SECRET => {
                self.pass.secrets.borrow_mut().push(self.path.to_string());
                let hidden = Self { secret: true, ..self };
                return hidden.claim(visitor.visit_newtype_struct(hidden));
            }
            _ => visitor.visit_newtype_struct(self),
        };
        self.claim(visited)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_items(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.visit_items(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit_items(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = self.entries("a mapping of names")?;
        self.claim(visitor.visit_map(entries))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = self.entries(&format!("a mapping of keys ({})", fields.join(", ")))?;
        entries.refuse_unknown(fields)?;
        self.claim(visitor.visit_map(entries))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let expected = || format!("one of {}", known.join(", "));
        let visited = match &self.node.value {
            Value::Scalar(_) => visitor.visit_enum(Variant { name: self, content: None }),
            Value::Map(entries) => match entries.as_slice() {
                [(key, content)] => {
                    let path = Path::Key(self.path, &key.text);
                    let name = Node::text(&key.text, key.origin.clone());
                    let name = self.child(&name, &path);
                    visitor.visit_enum(Variant { name, content: Some(self.child(content, &path)) })
                }
                _ => return Err(self.mismatch(&expected())),
            },
            Value::Seq(_) => return Err(self.mismatch(&expected())),
        };
        self.claim(visited)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct }
}
