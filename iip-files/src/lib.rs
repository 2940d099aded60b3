//! File transfer over IIP, as the typed service `iip.Files`. A [`Folder`] serves a directory; a
//! [`FileClient`] uploads files to it and downloads files from it.
//!
//! - An interrupted transfer is resumed by the next one, even from another process or after a
//!   restart of either side. Resuming does not read again what was already transferred.
//! - Each chunk (1 MiB, or 4 MiB in files above 4 GiB) is checked with BLAKE3 on arrival. The hash
//!   of the whole file, as printed by `b3sum`, is derived from the chunks. A file gets its name
//!   only after all of it is on disk.
//! - Neither side reads or writes anything outside its folder, whatever the other side sends.
//! - Other calls on the connection continue during a transfer: its data is a stream with its own
//!   flow control.
//!
//! See [`Folder`] for an example. The guide (`docs/guide/files.md` in the repository) describes the
//! course of a transfer and the limits.

// The path of a file through the modules, on either side:
//
//   source  root, path ─▶ send (reads ahead, hash) ─▶ stream of pieces
//   target  stream of pieces ─▶ receive (writes behind) ─▶ part (hash, journal) ─▶ its name
//
//   sources: client put, server downloads; targets: client get, server uploads

mod client;
mod failure;
pub mod go;
mod hash;
mod journal;
mod listing;
mod part;
mod path;
mod rate;
mod receive;
mod root;
mod send;
mod server;
pub mod service;
mod small;
mod sync;

pub use self::client::{FileClient, Phase, Progress, Report, Skipped, TransferOptions};
pub use self::hash::Hash;
pub use self::server::Folder;
pub use self::service::{Entry, Identity, Kind, Modified};

/// The page of the guide, so that `cargo test` compiles and runs its snippets.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/files.md")]
struct Guide;
