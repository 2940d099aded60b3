//! Statuses of errors of the file system.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use iip_rpc::{Code, Status};

/// The status of a failed step: `doing` says what failed, and on which file.
pub(crate) fn failed(error: io::Error, doing: impl Display) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Code::PermissionDenied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Code::ResourceExhausted
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidInput => {
            Code::FailedPrecondition
        }
        _ => Code::Internal,
    };
    Status::new(code, format!("{doing}: {error}"))
}

/// The status of a task that panicked, or was ended with its runtime.
pub(crate) fn ended(error: tokio::task::JoinError) -> Status {
    Status::internal_from(error)
}

/// Runs a step that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(step).await.map_err(ended)?
}
