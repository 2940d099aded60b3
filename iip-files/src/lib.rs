//! Transfer of files over IIP, as the typed service `iip.Files`: a [`Folder`] serves a directory, and
//! a [`FileClient`] puts files into it and gets them from it.
//!
//! - A transfer that was interrupted is resumed by the next one, also by that of another process
//!   and after a restart of either side. Nothing is read again for that.
//! - Every MiB is checked with BLAKE3 when it arrives, and the hash of the whole file, the one that
//!   `b3sum` prints, follows from that. A file gets its name only once all of it is on disk.
//! - Nothing outside the folder is read or written, on neither side, whatever the other side sends.
//! - Other calls on the connection go on beside a transfer, whose data flow as a stream with its own
//!   flow control.
//!
//! [`Folder`] has an example. The guide (`docs/guide/files.md` in the repository) describes how
//! transfers go, and what the limits are.

// How a file passes, on either side:
//
//   source  root, path ─▶ send (reads ahead, hash) ─▶ stream of pieces
//   target  stream of pieces ─▶ receive (writes behind) ─▶ part (hash, journal) ─▶ its name
//
//   client: put is a source, get a target; server: downloads and uploads

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
