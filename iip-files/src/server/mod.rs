//! A folder as a server of the service `iip.Files`.

mod downloads;
mod files;
mod folder;
mod stale;
mod uploads;

pub use self::folder::Folder;
pub(crate) use self::uploads::has_gone;
