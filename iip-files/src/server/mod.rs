//! A folder as a server of the service `iip.Files`.

mod contact;
mod downloads;
mod files;
mod folder;
mod replies;
mod stale;
mod uploads;

pub(crate) use self::contact::has_gone;
pub use self::folder::Folder;
