//! A folder as a server of the service `iip.Files`.

mod contact;
mod downloads;
mod files;
mod folder;
mod replies;
mod stale;
mod step;
mod uploads;
mod writers;

pub use self::folder::Folder;
pub(crate) use self::folder::MAX_WAIT;
