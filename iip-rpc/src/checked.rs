//! What generated code asks of the types in a service, so that the compiler says what to write
//! instead.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::context::CallContext;
use crate::streaming::Streaming;
use crate::subscription::Subscription;

/// Two names for one type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `{T}`, for which it was taken by its name",
    label = "has the name of a type of iip-rpc",
    note = "`#[service]` takes `CallContext`, `Streaming<T>` and `Subscription<T>` for those of iip-rpc; give a type of your own another name by \
            `use .. as ..`, or a path that begins with `crate`, `self` or `super`"
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

/// A second candidate for every type: of one alone the compiler would say that types are
/// mismatched.
#[derive(Debug)]
pub struct Other<T>(T);

impl<T> Same<Other<T>> for T {
    fn same(self) -> Other<T> {
        Other(self)
    }
}

/// A value whose type the macro has recognized by its name.
#[inline(always)]
pub fn known<T: Same<U>, U>(value: T) -> U {
    value.same()
}

/// What a method returns.
#[diagnostic::on_unimplemented(
    message = "a method cannot return `{Self}`",
    label = "not a `Result`",
    note = "write `Result<{Self}, Status>`: a call can fail"
)]
pub trait MethodOutput {
    /// What it answers with.
    type Value;
    /// How it fails.
    type Error;

    /// From the result that it is.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;

    /// As the result that it is.
    ///
    /// # Errors
    ///
    /// Those that it has.
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

/// Never implemented: the reason why some types are neither `Serialize` nor `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "a `{T}` cannot travel inside a message",
    label = "a `{T}`, which is no value",
    note = "a method takes a stream as its last argument, `items: Streaming<T>`, and answers with one as `Result<impl Stream<Item = Result<T, \
            Status>>, Status>` or `Result<Subscription<T>, Status>`; its context is its first parameter, `ctx: &CallContext`",
    note = "write these names themselves: `#[service]` does not see through aliases, imports under another name, and paths that begin with \
            `crate`, `self` or `super`"
)]
pub trait Holds<T> {}

/// What travels.
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
