//! Bounds that generated code puts on the types of a service, so that compiler errors suggest the
//! right code.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::context::CallContext;
use crate::streaming::Streaming;
use crate::subscription::Subscription;

/// Equality of two type names.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `{T}`, for which it was taken by its name",
    label = "has the name of a type of iip-rpc",
    note = "`#[service]` takes `CallContext`, `Streaming<T>` and `Subscription<T>` for those of \
        iip-rpc; give a type of your own another name by `use .. as ..`, or a path that begins \
        with `crate`, `self` or `super`"
)]
pub trait Same<T> {
    /// The value itself.
    fn same(self) -> T;
}

impl<T> Same<T> for T {
    #[inline(always)]
    fn same(self) -> T {
        self
    }
}

/// A second candidate for every type: with a single one, the compiler would only report mismatched
/// types.
#[derive(Debug)]
pub struct Other<T>(T);

impl<T> Same<Other<T>> for T {
    fn same(self) -> Other<T> {
        Other(self)
    }
}

/// Returns a value whose type the macro has recognized by its name.
#[inline(always)]
pub fn known<T: Same<U>, U>(value: T) -> U {
    value.same()
}

/// Return type of a method.
#[diagnostic::on_unimplemented(
    message = "a method cannot return `{Self}`",
    label = "not a `Result`",
    note = "write `Result<{Self}, Status>`: a call can fail"
)]
pub trait MethodOutput {
    /// The type of the reply.
    type Value;
    /// The error type.
    type Error;

    /// Converts a result to this type.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;

    /// Converts this type to a result.
    ///
    /// # Errors
    ///
    /// The errors of the method.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E> MethodOutput for Result<T, E> {
    type Value = T;
    type Error = E;

    #[inline(always)]
    fn from_result(result: Self) -> Self {
        result
    }

    #[inline(always)]
    fn into_result(self) -> Self {
        self
    }
}

/// Bound that is never satisfied: the reason why some types are neither `Serialize` nor
/// `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "a `{T}` cannot travel inside a message",
    label = "a `{T}`, which is no value",
    note = "a method takes a stream as its last argument, `items: Streaming<T>`, and answers with \
        one as `Result<impl Stream<Item = Result<T, Status>>, Status>` or \
        `Result<Subscription<T>, Status>`; its context is its first parameter, `ctx: &CallContext`",
    note = "write these names themselves: `#[service]` does not see through aliases, imports under \
        another name, and paths that begin with `crate`, `self` or `super`"
)]
pub trait Holds<T> {}

/// A message.
#[derive(Debug)]
pub struct Message<'a>(std::marker::PhantomData<&'a ()>);

macro_rules! not_a_value {
    ($([$($parameter:ident),*] $ty:ty;)*) => {$(
        #[doc(hidden)]
        impl<$($parameter),*> Serialize for $ty
        where
            for<'a> Message<'a>: Holds<Self>,
        {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not a value"))
            }
        }

        #[doc(hidden)]
        impl<'de, $($parameter),*> Deserialize<'de> for $ty
        where
            for<'a> Message<'a>: Holds<Self>,
        {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("not a value"))
            }
        }
    )*};
}

not_a_value! {
    [] CallContext;
    [T, E] Streaming<T, E>;
    [T] Subscription<T>;
}
