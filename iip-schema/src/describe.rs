//! The choice of the way in which a type is described, by the traits that it implements.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::registry::Registry;
use crate::schema::Schema;
use crate::types::Type;

/// Describes a type.
pub type Describer = fn(&mut Registry) -> Type;

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

/// The constants of [`Describe`] for types that do not implement [`Schema`]: those of types that do
/// come before.
pub trait NotDescribed {
    /// No reason is known.
    const IN_PLACE: Option<&'static str> = None;
    /// No reason is known.
    const IN_CONTAINER: Option<&'static str> = None;
    /// No reason is known.
    const IN_CONTAINERS: Option<&'static str> = None;
}

impl<T: ?Sized> NotDescribed for Describe<T> {}

impl<T: Schema + ?Sized> Describe<T> {
    /// The reason in the type or in types that it contains in place.
    pub const IN_PLACE: Option<&'static str> = T::IN_PLACE;
    /// The same, looking into one container.
    pub const IN_CONTAINER: Option<&'static str> = T::IN_CONTAINER;
    /// The same, looking into two containers.
    pub const IN_CONTAINERS: Option<&'static str> = T::IN_CONTAINERS;
}
