//! Mappings, lists and variants as serde walks them.

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::super::path::Path;
use super::super::tree::{Key, Node};
use super::fault::Fault;
use super::value::At;

/// The entries of a mapping that are not left out.
pub(in crate::config) struct Entries<'n> {
    mapping: At<'n>,
    rest: std::slice::Iter<'n, (Key, Node)>,
    value: Option<(&'n Key, &'n Node)>,
}

impl<'n> Entries<'n> {
    pub fn new(mapping: At<'n>, entries: &'n [(Key, Node)]) -> Self {
        Self { mapping, rest: entries.iter(), value: None }
    }

    /// Finds a key that is none of `known`.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<(), Fault> {
        for (key, _) in self.rest.clone() {
            let path = Path::Key(self.mapping.path, &key.text);
            let node = Node::text(&key.text, key.origin.clone());
            let at = self.mapping.child(&node, &path);
            if !known.contains(&&*key.text) && !at.is_left_out() {
                return Err(Fault::unknown_key(&self.mapping, &at, &key.text, known));
            }
        }
        Ok(())
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for (key, node) in self.rest.by_ref() {
            let path = Path::Key(self.mapping.path, &key.text);
            let name = Node::text(&key.text, key.origin.clone());
            let at = self.mapping.child(&name, &path);
            if !at.is_left_out() {
                self.value = Some((key, node));
                return at.claim(seed.deserialize(at)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.value.take() else {
            return Err(self.mapping.mismatch("a key before its value"));
        };
        let path = Path::Key(self.mapping.path, &key.text);
        let at = self.mapping.child(node, &path);
        at.claim(seed.deserialize(at))
    }
}

/// The items of a list that are not left out; each keeps its index.
pub(in crate::config) struct Items<'n> {
    list: At<'n>,
    rest: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'n> Items<'n> {
    pub fn new(list: At<'n>, items: &'n [Node]) -> Self {
        Self { list, rest: items.iter().enumerate() }
    }

    /// How many have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        for (index, node) in self.rest.by_ref() {
            let path = Path::Item(self.list.path, index);
            let at = self.list.child(node, &path);
            if !at.is_left_out() {
                return at.claim(seed.deserialize(at)).map(Some);
            }
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining())
    }
}

/// One of several: a name alone, or a mapping with one key whose value holds its settings.
pub(in crate::config) struct Variant<'n> {
    pub name: At<'n>,
    pub content: Option<At<'n>>,
}

impl Variant<'_> {
    fn content(&self) -> Result<At<'_>, Fault> {
        let needed = || {
            let name = self.name.text("a name").unwrap_or_default();
            Fault::complete(format!("{name} needs settings"))
                .remedy(format!("write `{name}: …` below the key"))
        };
        self.content.ok_or_else(|| needed().found_at(&self.name))
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name = self.name.claim(seed.deserialize(self.name))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(content) => Err(content.mismatch("the name alone, without settings")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}
