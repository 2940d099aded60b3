//! The service `iip.Files` as it is on the wire, for those who implement or call it themselves.
//! [`Folder`](crate::Folder) implements it, and [`FileClient`](crate::FileClient) calls it.
//!
//! An upload is `open`, `write` and `commit`. A download is `stat` and `read`; its state is at the
//! client only. The data of a file are [`Piece`]s in order, without gaps, from an offset on that is
//! a multiple of the chunk size: 1 MiB, and 4 MiB for files above 4 GiB. The last piece of each chunk
//! has the value of the chunk: its chaining value in BLAKE3's tree, or the hash of the file if the
//! file has only one chunk.

use iip_rpc::{CallContext, Payload, Status, Stream, Streaming, service};
use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// Maximum size, in bytes, of a [`Piece`]: it fits into one frame, so that it is received without a
/// copy, and delays other calls little.
pub const MAX_PIECE_BYTES: usize = 32 * 1024;
/// Files below this size, in bytes, are sent several in one message.
pub const SMALL_FILE_BYTES: u64 = 64 * 1024;
/// Maximum number of files in a message.
pub const MAX_SMALL_FILES: usize = 100;
/// Maximum number of entries in a message.
pub const MAX_ENTRIES: usize = 1000;

/// Transfer of files below a folder. Paths are relative to it, with `/` between names, and lead
/// through no symbolic links.
#[service(name = "iip.Files")]
pub trait Files {
    /// Describes a file or directory. The empty path is the folder itself.
    #[rpc(idempotent)]
    async fn stat(&self, path: &str) -> Result<Entry, Status>;

    /// Lists everything below a directory, directories before what they contain, with paths relative
    /// to it. At most [`MAX_ENTRIES`] in a message.
    async fn list(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Listed>, Status>>, Status>;

    /// Sends a file from an offset on. Fails with `FAILED_PRECONDITION` if the file is no longer the
    /// one of the request.
    async fn read(
        &self,
        ctx: &CallContext,
        request: ReadRequest,
    ) -> Result<impl Stream<Item = Result<Piece, Status>>, Status>;

    /// Reads files of less than [`SMALL_FILE_BYTES`], at most [`MAX_SMALL_FILES`].
    #[rpc(idempotent)]
    async fn read_small(&self, paths: Vec<String>) -> Result<Vec<SmallRead>, Status>;

    /// Reads a file and returns its hash. Fails with `FAILED_PRECONDITION` if the file is no longer
    /// the one of the identity.
    async fn checksum(&self, path: &str, identity: Identity) -> Result<Hash, Status>;

    /// Begins or resumes an upload. Fails with `ABORTED` while another one writes the same file.
    async fn open(&self, request: OpenRequest) -> Result<Opened, Status>;

    /// Takes the pieces of an open upload from its offset on. The stream that is returned has the
    /// offsets up to which the file is on disk. It ends with the upload: after the last offset, which
    /// is the size of the file, the server waits for `commit`. A client that drops the stream before
    /// gives the upload up; what is on disk stays.
    async fn write(
        &self,
        ctx: &CallContext,
        transfer: u64,
        pieces: Streaming<Piece>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;

    /// Returns how far the upload of a file is.
    #[rpc(idempotent)]
    async fn status(&self, path: &str) -> Result<UploadStatus, Status>;

    /// Ends an upload whose bytes are all on disk: the file gets its name.
    #[rpc(on_cancel = "run")]
    async fn commit(&self, request: CommitRequest) -> Result<Hash, Status>;

    /// Returns for each entry whether it has to be sent: a directory that does not exist, or a file
    /// that does not exist with this size and time. At most [`MAX_ENTRIES`].
    #[rpc(idempotent)]
    async fn missing(&self, entries: Vec<Listed>) -> Result<Vec<bool>, Status>;

    /// Creates directories with their parents; those that exist stay as they are. At most
    /// [`MAX_ENTRIES`].
    #[rpc(idempotent, on_cancel = "run")]
    async fn make_directories(&self, paths: Vec<String>) -> Result<(), Status>;

    /// Writes files of less than [`SMALL_FILE_BYTES`], at most [`MAX_SMALL_FILES`]. If one fails, any
    /// of the others may be written.
    #[rpc(idempotent, on_cancel = "run")]
    async fn write_small(&self, files: Vec<SmallFile>) -> Result<(), Status>;
}

/// A time of the last change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modified {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after these seconds.
    pub nanoseconds: u32,
}

/// What identifies the content of a source: an upload or download is resumed only if it is equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change.
    pub modified: Modified,
    /// Number of the file in its file system.
    pub inode: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, which is not followed.
    Link,
    /// A device, a socket or a named pipe, or a file whose name cannot be a path.
    Special,
}

/// A file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Size and time; the size of a directory is 0.
    pub identity: Identity,
}

/// A file or directory below another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The path.
    pub path: String,
    /// What is there.
    pub entry: Entry,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The value of the chunk that ends with this piece.
    pub chunk: Option<[u8; 32]>,
    /// The bytes: at least one, at most [`MAX_PIECE_BYTES`], all of one chunk.
    pub bytes: Payload,
}

/// Arguments of [`Files::read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The file.
    pub path: String,
    /// What [`Files::stat`] said.
    pub identity: Identity,
    /// Where to begin: a multiple of the chunk size, or the size of the file.
    pub offset: u64,
}

/// Arguments of [`Files::open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The file to write.
    pub path: String,
    /// The source.
    pub identity: Identity,
    /// An upload of the same file by this client whose connection was lost, and which this one
    /// replaces at once.
    pub previous: Option<u64>,
}

/// An open upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The number of the upload.
    pub transfer: u64,
    /// Where to begin.
    pub offset: u64,
    /// Set if bytes of an earlier upload were discarded because its source was different.
    pub restarted: bool,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// The source of the unfinished file, and the bytes of it that are on disk; `None` without an
    /// unfinished file.
    pub unfinished: Option<(Identity, u64)>,
    /// Set while it is written.
    pub is_open: bool,
}

/// Arguments of [`Files::commit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The number of the upload.
    pub transfer: u64,
    /// The hash of the source, if the client knows it.
    pub hash: Option<Hash>,
    /// Whether the server reads the whole file again before it gets its name.
    pub verify: bool,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallFile {
    /// The path.
    pub path: String,
    /// Time of the last change.
    pub modified: Modified,
    /// The hash of the content.
    pub hash: Hash,
    /// The content.
    pub bytes: Payload,
}

/// One of the files of [`Files::read_small`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmallRead {
    /// Its content.
    File {
        /// Time of the last change.
        modified: Modified,
        /// The hash of the content.
        hash: Hash,
        /// The content.
        bytes: Payload,
    },
    /// It is not small any more: it has to be read by [`Files::read`].
    Large,
    /// It cannot be read, and why.
    Refused(String),
}
