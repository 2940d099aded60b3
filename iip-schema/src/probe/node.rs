//! The types that reads have shown so far.

use super::key::Key;
use crate::types::Type;

/// The type of a place, as far as reads have shown it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Seen {
    #[default]
    Nothing,
    Is(Type),
    Option(Box<Self>),
    Seq(Box<Self>),
    Array(Box<Self>, usize),
    Tuple(Vec<Self>),
    Map(Box<(Self, Self)>),
    Node(usize),
    Opaque {
        name: String,
        reason: String,
    },
}

impl Seen {
    pub(super) fn opaque(name: &str, reason: &str) -> Self {
        Self::Opaque {
            name: name.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// Adds what was seen later at the same place.
    pub(super) fn merge(&mut self, other: Self) {
        match (self, other) {
            (_, Self::Nothing) => {}
            (this @ Self::Nothing, other) => *this = other,
            (Self::Option(a), Self::Option(b)) | (Self::Seq(a), Self::Seq(b)) => a.merge(*b),
            (Self::Array(a, m), Self::Array(b, n)) if *m == n => a.merge(*b),
            (Self::Tuple(a), Self::Tuple(b)) if a.len() == b.len() => {
                a.iter_mut().zip(b).for_each(|(a, b)| a.merge(b));
            }
            (Self::Map(a), Self::Map(b)) => {
                a.0.merge(b.0);
                a.1.merge(b.1);
            }
            (this, other) if *this == other => {}
            (Self::Opaque { .. }, _) => {}
            (this, _) => *this = Self::opaque("", "its form depends on its value"),
        }
    }

    /// The parts of a type without a name.
    pub(super) fn part(&mut self, index: usize) -> Option<&mut Self> {
        match self {
            Self::Option(of) | Self::Seq(of) | Self::Array(of, _) => Some(of),
            Self::Tuple(parts) => parts.get_mut(index),
            Self::Map(parts) => {
                let (key, value) = &mut **parts;
                Some(if index == 0 { key } else { value })
            }
            _ => None,
        }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Self> {
        let (first, second, rest): (Option<&Self>, Option<&Self>, &[Self]) = match self {
            Self::Option(of) | Self::Seq(of) | Self::Array(of, _) => (Some(of), None, &[]),
            Self::Map(parts) => (Some(&parts.0), Some(&parts.1), &[]),
            Self::Tuple(parts) => (None, None, parts),
            _ => (None, None, &[]),
        };
        first.into_iter().chain(second).chain(rest)
    }

    pub(super) fn has_gap(&self) -> bool {
        *self == Self::Nothing || self.parts().any(Self::has_gap)
    }
}

/// The form of a type with a name, or of the content of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unit,
    Newtype,
    Tuple,
    Struct,
    Enum,
    /// A struct of a tag and a content: an adjacently tagged enum. The number is the node of the
    /// enum in the tag, whose slots hold the contents.
    Adjacent(usize),
    /// A type that takes what there is.
    Any,
    /// An internally tagged enum. The first slot has the name of the tag, the others those of the
    /// variants.
    Tagged,
    /// A struct whose `Deserialize` passes no names of fields.
    Flat,
}

/// The content of a variant, as its visitor asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Unit,
    Newtype,
    Tuple(usize),
    Struct,
}

/// A type with a name, or the content of a variant.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// Fields, or variants with their contents.
    pub(super) slots: Vec<Slot>,
    /// The number of its reads that are under way.
    pub(super) open: usize,
    /// `true` if names that are not known are an error. If it is `false` for an enum, the last
    /// variant takes them.
    pub(super) denies_unknown: Option<bool>,
    pub(super) defaults_known: bool,
    /// The values that a node of kind [`Kind::Any`] was given, and those it took: a bit for each.
    pub(super) tried: u8,
    pub(super) taken: u8,
    /// The content of a variant, which has no name of its own.
    pub(super) is_content: bool,
}

impl Node {
    pub(super) fn new(key: Key, kind: Kind, slots: Vec<Slot>) -> Self {
        Self {
            key,
            kind,
            slots,
            open: 0,
            denies_unknown: None,
            defaults_known: false,
            tried: 0,
            taken: 0,
            is_content: false,
        }
    }

    pub(super) fn has_gap(&self) -> bool {
        self.slots.iter().any(Slot::has_gap)
    }

    /// The slot with this name, or that of which the name is an alias.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let found = self.slots.iter().position(|slot| slot.name == name)?;
        Some(self.slots[found].alias_of.unwrap_or(found))
    }

    pub(super) fn has_aliases(&self, slot: usize) -> bool {
        self.slots.iter().any(|other| other.alias_of == Some(slot))
    }
}

/// A field or a variant.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) name: &'static str,
    pub(super) seen: Seen,
    /// The Rust type that was asked for.
    pub(super) rust: &'static str,
    /// The reason why its latest read failed.
    pub(super) why: String,
    /// The number of its values that were refused after they were read.
    pub(super) round: usize,
    /// The number of its reads that are under way.
    pub(super) busy: usize,
    /// Nothing more can be found out.
    pub(super) abandoned: bool,
    pub(super) mark: Option<String>,
    pub(super) alias_of: Option<usize>,
    /// The name that is the field's own, if the field has several.
    pub(super) primary: Option<&'static str>,
    /// `true` if a struct without the field is refused.
    pub(super) required: Option<bool>,
}

impl Slot {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn has_gap(&self) -> bool {
        !self.abandoned && self.alias_of.is_none() && self.seen.has_gap()
    }
}
