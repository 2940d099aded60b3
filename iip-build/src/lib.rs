//! Code generation from `.proto` files for [`iip-rpc`], in a build script: a trait with
//! `#[service]` for every `service`, and prost types for every `message` and `enum`.
//!
//! `protoc` is not needed: [`protox`](https://docs.rs/protox), a `.proto` compiler in Rust, parses
//! the files.
//!
//! # Example
//!
//! `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! iip-rpc = { version = "0.1", features = ["codec-prost"] }
//! prost = "0.14"
//! prost-types = "0.14"   # if messages of google.protobuf are used, such as Timestamp
//!
//! [build-dependencies]
//! iip-build = "0.1"
//! ```
//!
//! `proto/kv.proto`:
//!
//! ```proto
//! syntax = "proto3";
//! package kv.v1;
//!
//! service Kv {
//!   rpc Get(GetRequest) returns (GetReply) { option idempotency_level = NO_SIDE_EFFECTS; }
//!   rpc Watch(WatchRequest) returns (stream Event);
//! }
//! // ..
//! ```
//!
//! `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     iip_build::compile_protos("proto/kv.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! `src/main.rs`:
//!
//! ```ignore
//! pub mod kv {
//!     iip_rpc::include_proto!("kv.v1");
//! }
//! use kv::{Event, GetReply, GetRequest, Kv, KvClient, KvServer, WatchRequest};
//!
//! struct Store;
//!
//! impl Kv for Store {
//!     async fn get(&self, request: GetRequest) -> Result<GetReply, Status> { .. }
//!     async fn watch(
//!         &self,
//!         request: WatchRequest,
//!     ) -> Result<impl Stream<Item = Result<Event, Status>>, Status> { .. }
//! }
//!
//! let server = Server::builder().service(KvServer::new(Store)).bind("127.0.0.1:7000").await?;
//! let kv = KvClient::new(Client::connect("127.0.0.1:7000").await?);
//! let reply = kv.get(GetRequest { key: "a".into() }).await?;
//! ```
//!
//! # Generated code
//!
//! | in the `.proto` file | in Rust |
//! |---|---|
//! | `service Kv` | `trait Kv` with `#[service(codec = "protobuf")]`, which generates `KvClient` and `KvServer` |
//! | `rpc GetRange(A) returns (B)` | `async fn get_range(&self, request: A) -> Result<B, Status>` |
//! | `returns (stream B)` | `-> Result<impl Stream<Item = Result<B, Status>>, Status>` |
//! | `(stream A)` | `requests: Streaming<A>` |
//! | `google.protobuf.Empty` | `()` |
//! | `idempotency_level = NO_SIDE_EFFECTS` or `IDEMPOTENT` | `#[rpc(idempotent)]` |
//! | `deprecated = true` | `#[deprecated]` |
//! | comments | documentation |
//!
//! If the name of a method is a keyword, the method is a raw identifier (`r#type`). If it is the
//! name of a method that every client has (`New`, `Clone`), the Rust method gets an underscore
//! (`new_`); its name on the wire is unchanged.
//!
//! [`prost-build`](prost_build) generates the messages and enums; its
//! [`Config`](prost_build::Config) can be [passed in](Builder::compile_with_config). `OUT_DIR` gets
//! one file for each package, such as `kv.v1.rs`, and `_.rs` for files without a package.
//!
//! # Limitations
//!
//! `syntax = "proto2"` and `"proto3"` are supported; editions are not.
//! [`Builder::compile_fds_with_config`] accepts a [`FileDescriptorSet`] that `protoc` or `buf` has
//! created.
//!
//! [`iip-rpc`]: https://docs.rs/iip-rpc
//! [`FileDescriptorSet`]: prost_types::FileDescriptorSet

mod builder;
mod check;
mod error;
mod generator;
mod naming;
mod settings;
mod sources;

pub use self::builder::{Builder, compile_protos, configure};
pub use self::error::Error;

pub use prost_build;
pub use prost_types;
