//! Error types of methods.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Status;

/// Error type of a method: a user-defined type that is sent as a value, and that can also hold a
/// [`Status`] for every failure that does not come from the method.
///
/// [`Status`] itself implements it. Derive it for your own enum:
///
/// ```ignore
/// #[derive(Debug, thiserror::Error, Serialize, Deserialize, iip_rpc::MethodError)]
/// enum GreetError {
///     #[error("name is empty")]
///     EmptyName,
///     #[error(transparent)]
///     #[status]
///     Rpc(Status),
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error type of a method",
    label = "not a method error",
    note = "use `Status`, or derive `iip_rpc::MethodError` on your enum and mark the variant that \
        holds a `Status` with `#[status]`"
)]
pub trait MethodError:
    Error + Serialize + DeserializeOwned + From<Status> + Send + Sync + 'static
{
    /// The statuses of HTTP with which a gateway replies for variants of the error, by the position
    /// of the variant. `#[rpc(http = 422)]` on a variant sets it. Default: none; a gateway then
    /// replies with 500.
    ///
    /// They are part of the [description](crate::schema) of a method.
    const HTTP_STATUSES: &'static [(u32, u16)] = &[];

    /// Returns the status inside, if this value is not an error of the application: it is then sent
    /// as a status.
    fn as_status(&self) -> Option<&Status> {
        None
    }
}

impl MethodError for Status {
    fn as_status(&self) -> Option<&Status> {
        Some(self)
    }
}
