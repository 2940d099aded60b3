//! What a server says to a caller about repeating a call that it has failed.

use std::time::Duration;

use crate::metadata::Metadata;
use crate::status::Status;

/// The metadata key that carries it, see `docs/wire.md`.
pub(crate) const KEY: &str = "iip-retry-after";

/// What a server wants of those who would repeat a failed call, see [`Status::pushback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a call is repeated later or not at all"
)]
pub enum Pushback {
    /// Repeat it, but not before this time has passed.
    After(Duration),
    /// Do not repeat it.
    Never,
}

impl Status {
    /// Tells clients to repeat the call, but not before `pause` has passed: for a server that has
    /// too much to do just now. It travels as metadata, in whole milliseconds, the fraction rounded
    /// up.
    ///
    /// A client repeats the call by itself if it may: if the method is idempotent, or the status
    /// says that it did not run ([`with_execution`](Self::with_execution)), within the call's time,
    /// the client's attempts and its budget. Plain JSON has no place for it.
    #[must_use]
    pub fn with_retry_after(self, pause: Duration) -> Self {
        let millis = pause.as_nanos().div_ceil(1_000_000);
        self.with_pushback(&millis.to_string())
    }

    /// Tells clients not to repeat the call, whatever its method allows. It travels as metadata.
    #[must_use]
    pub fn with_no_retry(self) -> Self {
        self.with_pushback("no")
    }

    fn with_pushback(mut self, value: &str) -> Self {
        // Metadata that is full has no room for a hint; the failure itself matters more.
        let _ = self.metadata_mut().insert_text(KEY, value);
        self
    }

    /// What the server wants of those who would repeat the call; `None` if it did not say.
    #[must_use]
    pub fn pushback(&self) -> Option<Pushback> {
        read(self.metadata())
    }
}

/// A number that is negative or none at all means the same as "no", as in gRPC.
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
    fn a_status_says_what_was_put_into_it() {
        let status = Status::unavailable("busy");
        assert_eq!(status.pushback(), None);
        let later = status.with_retry_after(Duration::from_micros(1_200));
        let pause = Duration::from_millis(2);
        assert_eq!(later.pushback(), Some(Pushback::After(pause)), "rounded up");
        assert_eq!(later.metadata().text(KEY), Some("2"));
        assert_eq!(later.with_no_retry().pushback(), Some(Pushback::Never));
    }
}
