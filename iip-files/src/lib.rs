//! Transfer of files over IIP, as the typed service `iip.Files`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod failure;
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

pub use self::client::{FileClient, Phase, Progress, Report, Skipped, TransferOptions};
pub use self::hash::Hash;
pub use self::server::Folder;
pub use self::service::{Entry, Identity, Kind, Modified};
