//! Descriptions of typed services: their methods, and the types of arguments and results as serde
//! writes them.
//!
//! A [`Description`] is made from Rust types, by [`Schema`] or by observing how a type that
//! implements `serde::Deserialize` reads itself. It is a value: it can be sent to a peer, saved in
//! a file, and compared with that of another build.
//!
//! This crate has no sockets, tasks or clocks.

mod closest;
pub mod compat;
mod derived;
mod describe;
pub mod description;
pub mod dynamic;
pub mod file;
pub mod fingerprint;
pub mod openapi;
mod probe;
mod registry;
mod same;
mod schema;
mod text;
pub mod types;

#[doc(hidden)]
pub mod __private;

pub use self::description::{Argument, Description, Format, Method, MethodKind};
pub use self::file::{assert_compatible, check_compatible};
pub use self::probe::probe;
pub use self::registry::{Names, Registry};
#[doc(hidden)]
pub use self::same::{check_derived, same_types};
pub use self::schema::Schema;
pub use self::types::{
    Definition, Enum, Field, Shape, Source, Tagging, Type, Types, Variant, VariantShape,
};
