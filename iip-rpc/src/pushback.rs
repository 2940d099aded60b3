//! Pushback of a server: its instruction to a caller about a retry of a failed call.

use std::time::Duration;

use crate::metadata::Metadata;
use crate::status::Status;

/// The metadata key of the pushback, see `docs/wire.md`.
pub(crate) const KEY: &str = "iip-retry-after";

/// Instruction of a server about a retry of a failed call, see [`Status::pushback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a call is repeated later or not at all"
)]
pub enum Pushback {
    /// Retry, but not before this time has passed.
    After(Duration),
    /// Do not retry.
    Never,
}

impl Status {
    /// Tells clients to retry the call, but not before `pause` has passed: for a server that is
    /// overloaded at the moment. Sent as metadata, in whole milliseconds, rounded up.
    ///
    /// A client retries the call automatically if it may: if the method is idempotent, or the
    /// status says that it did not run ([`with_execution`](Self::with_execution)), within the
    /// call's deadline, the client's attempts and its budget. Plain JSON cannot carry it.
    #[must_use]
    pub fn with_retry_after(self, pause: Duration) -> Self {
        let millis = pause.as_nanos().div_ceil(1_000_000);
        self.with_pushback(&millis.to_string())
    }

    /// Tells clients not to retry the call, whatever its method allows. Sent as metadata.
    #[must_use]
    pub fn with_no_retry(self) -> Self {
        self.with_pushback("no")
    }

    fn with_pushback(mut self, value: &str) -> Self {
        // If the metadata is full, the hint is dropped: the failure itself matters more.
        let _ = self.metadata_mut().insert_text(KEY, value);
        self
    }

    /// Instruction of the server about a retry of the call; `None` if it gave none.
    #[must_use]
    pub fn pushback(&self) -> Option<Pushback> {
        read(self.metadata())
    }
}

/// A number that is negative or invalid means the same as "no", as in gRPC.
fn read(metadata: &Metadata) -> Option<Pushback> {
    let value = metadata.get(KEY)?;
    let millis = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    Some(millis.map_or(Pushback::Never, |millis| {
        Pushback::After(Duration::from_millis(millis))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Option<Pushback> {
        let mut metadata = Metadata::new();
        metadata.insert_text(KEY, value).unwrap();
        read(&metadata)
    }

    #[test]
    fn a_number_is_a_pause_and_anything_else_forbids_a_repeat() {
        let ms = |millis| Some(Pushback::After(Duration::from_millis(millis)));
        assert_eq!(read(&Metadata::new()), None);
        assert_eq!(said("0"), ms(0));
        assert_eq!(said("250"), ms(250));
        for never in ["no", "-1", "", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(said(never), Some(Pushback::Never), "{never:?}");
        }
    }

    #[test]
    fn a_status_has_the_pushback_that_was_set() {
        let status = Status::unavailable("busy");
        assert_eq!(status.pushback(), None);
        let later = status.with_retry_after(Duration::from_micros(1_200));
        let pause = Duration::from_millis(2);
        assert_eq!(later.pushback(), Some(Pushback::After(pause)), "rounded up");
        assert_eq!(later.metadata().text(KEY), Some("2"));
        assert_eq!(later.with_no_retry().pushback(), Some(Pushback::Never));
    }
}
