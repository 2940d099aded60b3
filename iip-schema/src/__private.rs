//! Items that generated code may name. Not for use by hand; they may change with any version.

pub use crate::closest::path as closest_path;
pub use crate::derived::{
    Argument, Content, FieldTable, Form, TypeTable, VariantTable, assert_positional, describe_as,
    describe_table, first, opaque, text,
};
pub use crate::describe::{ByProbing, BySchema, Describe, Describer, NotDescribed, Opaquely};
pub use crate::registry::Registry;
pub use crate::schema::Schema;
pub use crate::types::Type;

/// The path of this module in iip-rpc, so that generated code finds it in either crate.
pub mod schema {
    pub use crate::__private;
}
