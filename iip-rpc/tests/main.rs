//! Codecs and calls of this crate alone, through its public API.

mod codec_promises;
mod compatibility;
mod descriptions;
mod dynamic;
mod json_calls;
mod lost_connections;
mod no_limit;
mod protobuf;
mod schema_derive;
mod serde_attributes;
mod wire_golden;
mod writers_refuse;
