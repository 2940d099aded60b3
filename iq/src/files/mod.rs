//! `iq put`, `iq get` and `iq serve`: file transfers.

mod get;
mod place;
mod progress;
mod put;
mod serve;
mod size_limit;
mod transfer;

pub(crate) use self::get::GetArgs;
pub(crate) use self::put::PutArgs;
pub(crate) use self::serve::ServeArgs;
