//! The backend that a call was sent to.

use std::sync::{Arc, Mutex, PoisonError};

use iip_core::__rpc::CallTracker;
use iip_core::balance::BackendInfo;

/// The backend of a call, for interceptors of clients that balance their calls; see
/// [`ClientCall::called`](super::ClientCall::called). Clones are of the same call.
///
/// ```
/// use iip_rpc::interceptor::{ClientCall, ClientInterceptor, Completion, Next};
/// use iip_rpc::Status;
///
/// struct Log;
///
/// impl ClientInterceptor for Log {
///     async fn intercept(
///         &self,
///         call: ClientCall,
///         next: Next<ClientCall>,
///     ) -> Result<Completion, Status> {
///         let (method, called) = (call.method(), call.called());
///         let reply = next.run(call).await;
///         if let Some(backend) = called.get() {
///             println!("{method}: {} from {}", reply.outcome(), backend.endpoint);
///         }
///         Ok(reply)
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct CalledBackend(Option<Arc<Mutex<Option<Arc<BackendInfo>>>>>);

impl CalledBackend {
    /// The handle of a call that is balanced.
    pub(crate) fn balanced() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns the backend of the last attempt, or of the one whose reply counts if the call was
    /// hedged. It is known from the time at which an attempt is about to be sent, also if the call
    /// fails or is cancelled later.
    ///
    /// `None` if no backend was found for the call so far, and for a client with a single address.
    #[must_use]
    pub fn get(&self) -> Option<Arc<BackendInfo>> {
        let place = self.0.as_ref()?;
        place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the backend of an attempt.
    #[inline]
    pub(crate) fn set(&self, tracker: Option<&CallTracker>) {
        if let (Some(place), Some(tracker)) = (&self.0, tracker) {
            let backend = Arc::clone(tracker.backend());
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend);
        }
    }
}
