//! All that generated code may name. Not for use by hand; it may change with any version.

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

pub use bytes::Bytes;

pub use crate::payload::ByValue;
pub use crate::{
    CallContext, CallOptions, Client, Concurrency, Hedge, MethodDescriptor, MethodError, Methods,
    OnCancel, Priority, Service, Status,
};

/// What a method of the `dyn`-compatible twin of a service returns.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
