//! The paths of Go's file servers, `/download_file` and `/upload_file`, on both sides.
//!
//! Each request carries a part of a file. The protocol has no streams, hashes, sizes or
//! directories. Use it if one side is written in Go, and [`Folder`](crate::Folder) with
//! [`FileClient`](crate::FileClient) otherwise.
//!
//! | | [`service()`] | a server of Go |
//! |---|---|---|
//! | paths | below the folder, without symbolic links | any file of the machine |
//! | an upload | goes to a hidden file, which gets the name once it is complete | |
//! | a part that begins after the end of the previous ones | fails | |
//! | two writers of a file | the second one fails, until the first one is silent for 30 s | |
//!
//! The protocol is deduced from the recordings `file_download`, `file_download_missing` and
//! `file_upload`.

mod client;
mod server;
mod wire;

use bytes::Bytes;
use iip_rpc::{Status, service};

pub use self::client::GoFileClient;
pub use self::server::service;

#[service(name = "iip.GoFiles")]
trait GoFiles {
    /// Sends a part of a file.
    #[rpc(path = "/download_file", raw, idempotent)]
    async fn download(&self, body: Bytes) -> Result<Bytes, Status>;

    /// Receives a part of a file.
    #[rpc(path = "/upload_file", raw)]
    async fn upload(&self, body: Bytes) -> Result<Bytes, Status>;
}
