//! Items that generated code may name. Not for use by hand; they may change with any version.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

pub use crate::closest::path as closest_path;
pub use crate::derived::{
    Argument, Content, Describer, FieldTable, Form, NotDescribed, TypeTable, VariantTable,
    assert_positional, describe_as, describe_table, first, opaque, text,
};
pub use crate::registry::Registry;
pub use crate::schema::Schema;
pub use crate::types::Type;

/// The path of this module in iip-rpc, so that generated code finds it in either crate.
pub mod schema {
    pub use crate::__private;
}

/// Chooses how a type is described: `(&&&Describe::<T>::new()).describe(&mut registry)` takes the
/// first of [`BySchema`], [`ByProbing`] and [`Opaquely`] whose bounds `T` meets.
#[derive(Debug)]
pub struct Describe<T: ?Sized>(PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> Describe<T> {
    /// A choice for `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ?Sized> Default for Describe<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The description of a type that implements [`Schema`].
pub trait BySchema {
    /// Describes the type.
    fn describe(&self, registry: &mut Registry) -> Type;

    /// A function that describes the type.
    fn function(&self) -> Describer;
}

impl<T: Schema + ?Sized> BySchema for &&Describe<T> {
    fn describe(&self, registry: &mut Registry) -> Type {
        T::describe(registry)
    }

    fn function(&self) -> Describer {
        T::describe
    }
}

/// The description of a type that can be deserialized.
pub trait ByProbing {
    /// Describes the type.
    fn describe(&self, registry: &mut Registry) -> Type;

    /// A function that describes the type.
    fn function(&self) -> Describer;
}

impl<T: DeserializeOwned + 'static> ByProbing for &Describe<T> {
    fn describe(&self, registry: &mut Registry) -> Type {
        crate::probe::probe::<T>(registry)
    }

    fn function(&self) -> Describer {
        |registry| ByProbing::describe(&&Describe::<T>::new(), registry)
    }
}

/// The description of any other type.
pub trait Opaquely {
    /// Describes the type.
    fn describe(&self, registry: &mut Registry) -> Type;

    /// A function that describes the type.
    fn function(&self) -> Describer;
}

impl<T: ?Sized> Opaquely for Describe<T> {
    fn describe(&self, _: &mut Registry) -> Type {
        Type::opaque(
            std::any::type_name::<T>(),
            "it neither derives `Schema` nor implements `Deserialize`",
        )
    }

    fn function(&self) -> Describer {
        |registry| Opaquely::describe(&Self::new(), registry)
    }
}
