//! Counters of servers and clients: calls by method and code, their durations, bytes, connections.
//!
//! [`Server::stats`](crate::Server::stats) and [`Client::stats`](crate::Client::stats) return a
//! [`Snapshot`]. Counting is always on. Its memory is bounded by the number of methods, and does not
//! depend on whether anybody reads it.

mod bucket;
mod code;
mod frames;
pub(crate) mod go;
mod go_paths;
mod histogram;
pub(crate) mod json;
mod method;
#[doc(hidden)]
pub mod names;
mod notable;
mod prometheus;
mod recent;
mod recorder;
mod registry;
mod replies;
mod snapshot;
#[doc(hidden)]
pub mod verdict;

pub(crate) use self::code::{
    CANCELLED, INTERNAL, OK, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNKNOWN,
};
pub use self::code::{CODE_NAMES, Codes, is_error};
pub(crate) use self::frames::FrameCounts;
pub use self::histogram::Histogram;
pub(crate) use self::notable::RecentCalls;
#[doc(hidden)]
pub use self::notable::may_be_slow;
pub use self::notable::{MAX_RECENT_CALLS, RecentCall};
pub use self::prometheus::MetricsFormat;
pub(crate) use self::recorder::Recorder;
pub(crate) use self::registry::{MethodId, Registry};
pub(crate) use self::replies::ReplyBatch;
pub use self::snapshot::{
    ConnectionStats, Connections, MAX_LISTED_CONNECTIONS, MAX_METHODS, MethodStats, OTHER,
    Snapshot, Traffic,
};
