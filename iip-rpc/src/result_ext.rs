//! Conversion of errors of any type to statuses.

use std::borrow::Cow;
use std::error::Error;

use crate::status::{Code, Status};

/// Converts errors of any type to statuses, so that handlers can use `?` on them: errors of the
/// standard library, of other crates, of `anyhow`.
///
/// A [`Status`] deliberately does not implement `From` for them. The code of a failure is a
/// decision, and the text of an error, with its paths and addresses, is not for callers. Here the
/// error becomes the [source](Status::with_source) of the status, which the server logs
/// ([`ServerBuilder::log_failures`](crate::ServerBuilder::log_failures)) and does not send.
///
/// ```
/// use iip_rpc::{Code, ResultExt, Status};
///
/// fn motd() -> Result<String, Status> {
///     // INTERNAL, "internal error"
///     std::fs::read_to_string("/no/such/file").or_internal()
/// }
///
/// fn count(text: &str) -> Result<u32, Status> {
///     let count = text.parse().or_status(Code::InvalidArgument, "the count is no number")?;
///     Ok(count)
/// }
///
/// let status = motd().unwrap_err();
/// assert_eq!(status.to_string(), "internal: internal error");
/// assert!(status.cause().is_some_and(|cause| cause.is::<std::io::Error>()));
/// assert_eq!(count("x").unwrap_err().to_string(), "invalid argument: the count is no number");
/// ```
pub trait ResultExt<T> {
    /// Converts an error to INTERNAL with the text `internal error`, see [`Status::internal_from`].
    ///
    /// # Errors
    ///
    /// This status, with the error as its source.
    fn or_internal(self) -> Result<T, Status>;

    /// Converts an error to a status with this code and this text for its caller.
    ///
    /// # Errors
    ///
    /// This status, with the error as its source.
    fn or_status(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T, Status>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> ResultExt<T> for Result<T, E> {
    fn or_internal(self) -> Result<T, Status> {
        self.map_err(Status::internal_from)
    }

    fn or_status(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T, Status> {
        self.map_err(|error| Status::new(code, message).with_source(error))
    }
}
