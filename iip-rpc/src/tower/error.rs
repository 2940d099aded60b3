//! Conversion of the errors of tower services to statuses.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::CallFailed;
use crate::overload;
use crate::status::Status;

/// An error of any type, as tower's own layers return it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Returns the status that a caller gets for an error of a tower layer or service.
///
/// | error | status |
/// |---|---|
/// | a [`Status`] | itself |
/// | `tower::timeout::error::Elapsed`, `tokio::time::error::Elapsed` | DEADLINE_EXCEEDED |
/// | `tower::load_shed::error::Overloaded` | RESOURCE_EXHAUSTED, with a hint to retry after 100 ms |
/// | any other | INTERNAL; the error is not sent, but logged at the level debug |
///
/// The error is the status' [source](Error::source), on this side of the wire.
#[must_use]
pub fn status_of(error: BoxError) -> Status {
    let error = match error.downcast::<Status>() {
        Ok(status) => return *status,
        Err(error) => error,
    };
    let status = known(&*error).unwrap_or_else(|| {
        tracing::debug!(?error, "a tower service failed");
        unknown()
    });
    status.with_source(error)
}

/// Like [`status_of`], but borrows the error.
pub(super) fn status_of_ref(error: &(dyn Error + 'static)) -> Status {
    let own = error.downcast_ref::<Status>().cloned();
    own.or_else(|| known(error)).unwrap_or_else(unknown)
}

/// Recognizes errors of timeouts and load shedding. The library does not depend on the crate
/// `tower`, each version of which has its own error types: those are recognized by their texts.
fn known(error: &(dyn Error + 'static)) -> Option<Status> {
    let text = error.to_string();
    if text == "request timed out" || error.is::<tokio::time::error::Elapsed>() {
        Some(Status::deadline_exceeded("a tower layer timed out"))
    } else if text == "service overloaded" {
        let text = "a tower layer is at capacity";
        Some(overload::overloaded(text.to_owned()))
    } else {
        None
    }
}

fn unknown() -> Status {
    Status::internal("a tower service failed")
}

/// Returns the failure of the call itself, also from within an error that a layer made of it.
pub(super) fn failed<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CallFailed> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failed) = error.downcast_ref() {
            return Some(failed);
        }
        cause = error.source();
    }
    None
}

/// Converts errors to statuses.
#[derive(Clone, Default)]
pub(crate) struct Errors(Option<Arc<dyn Fn(BoxError) -> Status + Send + Sync>>);

impl Errors {
    pub(crate) fn mapped(map: impl Fn(BoxError) -> Status + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(map)))
    }

    pub(crate) fn status(&self, error: BoxError) -> Status {
        match &self.0 {
            Some(map) if !error.is::<Status>() => map(error),
            _ => status_of(error),
        }
    }
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "mapped",
            None => "default",
        })
    }
}
