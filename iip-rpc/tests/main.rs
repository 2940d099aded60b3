//! Codecs and calls of this crate alone, through its public API.

mod codec_promises;
mod no_limit;
mod protobuf;
mod serde_attributes;
mod wire_golden;
mod writers_refuse;
