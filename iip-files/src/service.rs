//! The wire contract of the service `iip.Files`, for programs that implement or call it directly.
//! [`Folder`](crate::Folder) implements it, and [`FileClient`](crate::FileClient) calls it.
//!
//! An upload consists of `open`, `write` and `commit`, a download of `stat` and `read`. Only the
//! client keeps the state of a download. File data is sent as [`Piece`]s, in order and without
//! gaps, starting at a multiple of the chunk size. Chunks are 1 MiB, or 4 MiB for files above 4
//! GiB. The last piece of each chunk carries the value of the chunk: its chaining value in the
//! BLAKE3 tree, or the hash of the file if the file has only one chunk.

use iip_rpc::{CallContext, Payload, Status, Stream, Streaming, service};
use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// Maximum size of a [`Piece`], in bytes. A piece fits into one frame, so it is received without a
/// copy and hardly delays other calls.
pub const MAX_PIECE_BYTES: usize = 32 * 1024;
/// Size, in bytes, below which files of a directory are sent several in one message.
pub const SMALL_FILE_BYTES: u64 = 64 * 1024;
/// Maximum number of small files in a message.
pub const MAX_SMALL_FILES: usize = 100;
/// Maximum number of entries in a message.
pub const MAX_ENTRIES: usize = 1000;

/// File transfer below a folder. Paths are relative to the folder, with `/` between names. Symbolic
/// links in them are not followed.
#[service(name = "iip.Files")]
pub trait Files {
    /// Describes a file or directory. The empty path is the folder itself.
    #[rpc(idempotent)]
    async fn stat(&self, path: &str) -> Result<Entry, Status>;

    /// Lists everything below a directory, each directory before its contents. Paths are relative
    /// to the listed directory. A message has at most [`MAX_ENTRIES`] entries.
    async fn list(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Listed>, Status>>, Status>;

    /// Sends a file, starting at an offset. Fails with `FAILED_PRECONDITION` if the file no longer
    /// has the identity in the request.
    async fn read(
        &self,
        ctx: &CallContext,
        request: ReadRequest,
    ) -> Result<impl Stream<Item = Result<Piece, Status>>, Status>;

    /// Reads up to [`MAX_SMALL_FILES`] files of less than [`SMALL_FILE_BYTES`] each. The results
    /// have the order of `paths`.
    #[rpc(idempotent)]
    async fn read_small(&self, paths: Vec<String>) -> Result<Vec<SmallRead>, Status>;

    /// Reads a file and returns its hash. Fails with `FAILED_PRECONDITION` if the file no longer
    /// has this identity.
    async fn checksum(&self, path: &str, identity: Identity) -> Result<Hash, Status>;

    /// Begins or resumes an upload. Fails with `ABORTED` while another upload writes the same file.
    async fn open(&self, request: OpenRequest) -> Result<Opened, Status>;

    /// Receives the pieces of an open upload, starting at its offset. The returned stream yields
    /// the offsets up to which the file is on disk. After the last one, the size of the file, the
    /// stream stays open until `commit` ends the upload. A client that drops the stream earlier
    /// abandons the upload; the bytes on disk are kept.
    async fn write(
        &self,
        ctx: &CallContext,
        transfer: u64,
        pieces: Streaming<Piece>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;

    /// Returns the progress of the upload of a file.
    #[rpc(idempotent)]
    async fn status(&self, path: &str) -> Result<UploadStatus, Status>;

    /// Completes an upload whose bytes are all on disk: gives the file its name, and returns its
    /// hash.
    #[rpc(on_cancel = "run")]
    async fn commit(&self, request: CommitRequest) -> Result<Hash, Status>;

    /// Returns, for each of at most [`MAX_ENTRIES`] entries, `true` if it has to be sent: if the
    /// directory does not exist, or no file with this size and modification time.
    #[rpc(idempotent)]
    async fn missing(&self, entries: Vec<Listed>) -> Result<Vec<bool>, Status>;

    /// Creates up to [`MAX_ENTRIES`] directories and their parents. Existing directories are left
    /// unchanged. If the call is cancelled, some of them may have been created.
    #[rpc(idempotent)]
    async fn make_directories(&self, paths: Vec<String>) -> Result<(), Status>;

    /// Writes up to [`MAX_SMALL_FILES`] files of less than [`SMALL_FILE_BYTES`] each. If one fails,
    /// any of the others may have been written.
    #[rpc(idempotent, on_cancel = "run")]
    async fn write_small(&self, files: Vec<SmallFile>) -> Result<(), Status>;
}

/// A modification time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modified {
    /// Seconds since the Unix epoch; negative before it.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// The identity of the content of a source file. A transfer is resumed only if it is unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: Modified,
    /// Inode number of the file in its file system.
    pub inode: u64,
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, which is not followed.
    Link,
    /// A device, a socket or a named pipe, or a file whose name is not allowed in a path.
    Special,
}

/// A file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kind.
    pub kind: Kind,
    /// Size, modification time and inode number; all 0 for a directory.
    pub identity: Identity,
}

/// A path with the file or directory that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The path.
    pub path: String,
    /// The file or directory at the path.
    pub entry: Entry,
}

/// A run of bytes of a file, within one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The value of the chunk, if the chunk ends with this piece.
    pub chunk: Option<[u8; 32]>,
    /// The bytes: at least one, at most [`MAX_PIECE_BYTES`], all of one chunk.
    pub bytes: Payload,
}

/// Arguments of [`Files::read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The path of the file.
    pub path: String,
    /// The identity that [`Files::stat`] returned.
    pub identity: Identity,
    /// The offset to start at: a multiple of the chunk size, or the size of the file.
    pub offset: u64,
}

/// Arguments of [`Files::open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The path of the file to write.
    pub path: String,
    /// The identity of the source.
    pub identity: Identity,
    /// The number of an earlier upload of the same file, which this one replaces at once. A client
    /// sets it after it has lost the connection of that upload.
    pub previous: Option<u64>,
}

/// An open upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The number of the upload.
    pub transfer: u64,
    /// The offset to start at.
    pub offset: u64,
    /// Set if bytes of an earlier upload were discarded because its source was different.
    pub restarted: bool,
}

/// The progress of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// The identity of the source of the unfinished file, and the number of bytes that are on disk;
    /// `None` if there is no unfinished file.
    pub unfinished: Option<(Identity, u64)>,
    /// Set while the file is being written.
    pub is_open: bool,
}

/// Arguments of [`Files::commit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The number of the upload.
    pub transfer: u64,
    /// The hash of the source, if the client knows it.
    pub hash: Option<Hash>,
    /// Makes the server read the whole file again before the file gets its name.
    pub verify: bool,
}

/// A small file with its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallFile {
    /// The path.
    pub path: String,
    /// Modification time.
    pub modified: Modified,
    /// The hash of the content.
    pub hash: Hash,
    /// The content.
    pub bytes: Payload,
}

/// The result for one of the files of [`Files::read_small`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmallRead {
    /// The file was read.
    File {
        /// Modification time.
        modified: Modified,
        /// The hash of the content.
        hash: Hash,
        /// The content.
        bytes: Payload,
    },
    /// The file has to be read with [`Files::read`]: it is no longer small, or a rate limit of the
    /// server does not allow it in this message.
    Large,
    /// The file cannot be read, for this reason.
    Refused(String),
}
