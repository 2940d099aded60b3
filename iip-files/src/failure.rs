//! Conversion of file system errors into statuses.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use iip_rpc::{Code, Status};

/// Returns the status of a failed operation. `doing` names the operation and the file.
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

/// Returns the status for a task that panicked, or was cancelled with its runtime.
pub(crate) fn ended(error: tokio::task::JoinError) -> Status {
    Status::internal_from(error)
}

/// Runs a blocking operation on Tokio's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(step).await.map_err(ended)?
}
