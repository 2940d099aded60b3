//! The trait of types that describe themselves.

mod net;
mod std;

use crate::registry::Registry;
use crate::types::Type;

/// A type that describes how serde writes and reads it. `#[derive(Schema)]` implements it from the
/// attributes of serde.
///
/// The types of the standard library that serde supports implement it, except for `Rc`, `Weak` and
/// types whose form depends on the operating system.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not describe itself",
    note = "add `#[derive(Schema)]` to the type, or name a type that is written in the same form \
        with `#[schema(as = \"..\")]`"
)]
pub trait Schema: 'static {
    /// The reason why values of this type cannot travel in a format without field names, if it
    /// follows from the attributes of the type itself: the attribute and its place.
    const NAMED_ONLY: Option<&'static str> = None;

    /// `true` if it is intended that values of this type travel only in formats with field names:
    /// `#[schema(named_only)]`.
    const IS_NAMED_ONLY: bool = false;

    /// The reason in this type, or in a type that its values contain without allocation.
    ///
    /// The three constants find reasons in nested types at compile time. Constants must not depend
    /// on themselves, but types may: always by a container on the heap, as a type would have no
    /// size otherwise. So there is a constant for each number of containers that are looked into.
    #[doc(hidden)]
    const IN_PLACE: Option<&'static str> = match Self::IS_NAMED_ONLY {
        true => None,
        false => Self::NAMED_ONLY,
    };

    /// The same, looking into one container, such as `Vec` or `Box`.
    #[doc(hidden)]
    const IN_CONTAINER: Option<&'static str> = Self::IN_PLACE;

    /// The same, looking into two containers, one within the other.
    #[doc(hidden)]
    const IN_CONTAINERS: Option<&'static str> = Self::IN_CONTAINER;

    /// The type, with the named types that it uses added to `registry`.
    fn describe(registry: &mut Registry) -> Type;
}
