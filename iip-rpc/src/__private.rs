//! Items that generated code may name. Not for use by hand; they may change with any version.

pub use std::borrow::ToOwned;
pub use std::boxed::Box;
pub use std::clone::Clone;
pub use std::convert::From;
pub use std::fmt;
pub use std::future::Future;
pub use std::marker::{PhantomData, Send, Sync};
pub use std::option::Option::{self, None, Some};
pub use std::string::String;
pub use std::sync::Arc;
pub use std::time::Duration;
pub use std::vec::Vec;

#[cfg(feature = "macros")]
pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use iip_core::balance::ToTarget;
pub use iip_schema as schema;

pub use crate::boxed::BoxFuture;
pub use crate::checked::{Holds, Message, MethodOutput, Other, Same, known};
pub use crate::codec::CodecId;
#[cfg(feature = "codec-prost")]
pub use crate::codec::{Proto, ProtoRef};
pub use crate::payload::ByValue;
pub use crate::schema::describing::{
    DescribedMethod, Describing, ErrorType, NoStatuses, Statuses, assert_codec_fits, error_type,
    protobuf_type, raw_type,
};
pub use crate::streaming::held::{Held, Passage, held};
#[cfg(feature = "codec-prost")]
pub use crate::streaming::proto::{proto_messages, proto_stream, protos};
pub use crate::{
    __assert_codec_fits as assert_codec_fits, __described as described, __error_type as error_type,
    __type_fn as type_fn,
};
pub use crate::{
    CallContext, CallOptions, Client, Concurrency, Hedge, MethodDescriptor, MethodError, Methods,
    OnCancel, Priority, Service, Status, Streaming, Subscription,
};

/// The stream that a method of the `dyn`-compatible twin of a service replies with.
pub type BoxStream<'a, T> = std::pin::Pin<Box<dyn futures_core::Stream<Item = T> + Send + 'a>>;

/// Boxes the stream that a method replies with.
pub fn boxed<'a, S, E>(result: Result<S, E>) -> Result<BoxStream<'a, S::Item>, E>
where
    S: futures_core::Stream + Send + 'a,
{
    match result {
        Ok(stream) => Ok(Box::pin(stream)),
        Err(error) => Err(error),
    }
}

/// Item of the stream that a method replies with.
#[diagnostic::on_unimplemented(
    message = "a method cannot return a stream of `{Self}`",
    note = "write `impl Stream<Item = Result<T, Status>>`: the connection may fail between two \
        messages"
)]
pub trait StreamItem {
    /// Each message.
    type Message;
    /// The error of the stream.
    type Error;
}

impl<T, E> StreamItem for Result<T, E> {
    type Message = T;
    type Error = E;
}

/// The client's stream for a method that replies with a stream of these items.
pub type StreamOf<I> = Streaming<<I as StreamItem>::Message, <I as StreamItem>::Error>;

/// A function that describes a type: by its `Schema`, or by observing it.
#[doc(hidden)]
#[macro_export]
macro_rules! __type_fn {
    ($ty:ty) => {
        |types| {
            #[allow(unused_imports)]
            use $crate::__private::schema::__private::{
                ByProbing as _, BySchema as _, Describe, Opaquely as _,
            };
            (&&&Describe::<$ty>::new()).describe(types)
        }
    };
}

/// The type of the errors of a method, if they are its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __error_type {
    ($ty:ty) => {{
        #[allow(unused_imports)]
        use $crate::__private::{NoStatuses as _, Statuses};
        $crate::__private::error_type::<$ty>(
            $crate::__private::type_fn!($ty),
            Statuses::<$ty>::OF_HTTP,
        )
    }};
}

/// A method to describe.
#[doc(hidden)]
#[macro_export]
macro_rules! __described {
    (
        $method:expr, $kind:ident, $doc:expr, $deprecated:expr, [$($arg:expr),*],
        $requests:expr, $result:expr, $error:expr, $stream_error:expr
    ) => {
        $crate::__private::DescribedMethod {
            method: $method,
            kind: $crate::__private::schema::MethodKind::$kind,
            doc: $doc,
            deprecated: $deprecated,
            args: &[$($arg),*],
            requests: $requests,
            result: $result,
            error: $error,
            stream_error: $stream_error,
        }
    };
}

/// Checks at compile time that values of types can travel in the codec of a service.
#[doc(hidden)]
#[macro_export]
macro_rules! __assert_codec_fits {
    ($codec:expr, $($ty:ty),*) => {
        const _: () = {
            #[allow(unused_imports)]
            use $crate::__private::schema::__private::{Describe, NotDescribed as _};
            $($crate::__private::assert_codec_fits($codec, Describe::<$ty>::IN_CONTAINERS);)*
        };
    };
}
