//! The identity of a type that was found by probing.

/// Tells visitors apart. Names of types contain all their arguments, so that a generic type within
/// itself is not taken for a recursion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) visitor: &'static str,
    /// The type that the visitor makes.
    pub(crate) value: &'static str,
    pub(crate) size: usize,
    /// The name and the names of fields or variants that the `Deserialize` passed.
    pub(crate) name: &'static str,
    pub(crate) names: &'static [&'static str],
}

/// The observations that a description of a type is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Both,
    Readable,
    Compact,
}
