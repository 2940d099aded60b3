//! The limits of a connection, with the default that typed messages have.
//!
//! `max_message_bytes` is the size seen by a caller: that of the encoded arguments, or of the
//! encoded result. The bytes of the envelope around them are allowed in addition.

use iip_core::Limits;

/// Default of the largest typed message: 16 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Number of bytes of an encoded value beyond `max_message_bytes`: for its length and a few small
/// fields, so that bytes of exactly that size fit.
pub(crate) const CODEC_BYTES: usize = 32;

/// Number of bytes of a message beyond `max_message_bytes`: the envelope, with the maximum of
/// metadata, and [`CODEC_BYTES`].
pub(crate) const ENVELOPE_BYTES: usize = 20 * 1024;

/// Limits of a connection that were set. The others have their defaults, whatever the order in
/// which limits were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypedLimits(Limits);

impl TypedLimits {
    /// Replaces all limits, but keeps the message size if `limits` does not set one.
    #[must_use]
    pub(crate) fn with(self, limits: Limits) -> Self {
        let own = limits.own_message_bytes();
        match own.or_else(|| self.0.own_message_bytes()) {
            Some(bytes) => Self(limits.max_message_bytes(bytes)),
            None => Self(limits),
        }
    }

    #[must_use]
    pub(crate) fn max_message_bytes(self, bytes: usize) -> Self {
        Self(self.0.max_message_bytes(bytes))
    }

    /// The maximum size of encoded arguments and results, in bytes.
    pub(crate) fn message_bytes(&self) -> usize {
        self.0.own_message_bytes().unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// The limits of the connection, whose messages have envelopes.
    pub(crate) fn of_connection(&self) -> Limits {
        let bytes = self.message_bytes().saturating_add(ENVELOPE_BYTES);
        self.0.clone().max_message_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_for_typed_messages_is_kept_by_limits_without_a_message_size() {
        assert_eq!(TypedLimits::default().message_bytes(), MAX_MESSAGE_BYTES);
        let limits = TypedLimits::default().with(Limits::default().max_channels(7));
        assert_eq!(limits.message_bytes(), MAX_MESSAGE_BYTES);
        let connection = limits.of_connection();
        assert_eq!(connection.get_max_channels(), 7);
        assert_eq!(
            connection.get_max_message_bytes(),
            MAX_MESSAGE_BYTES + ENVELOPE_BYTES
        );
    }

    #[test]
    fn the_maximum_size_can_be_set() {
        let limits = TypedLimits::default().max_message_bytes(usize::MAX);
        assert_eq!(limits.of_connection().get_max_message_bytes(), usize::MAX);
    }

    #[test]
    fn settings_apply_in_any_order() {
        let channels = || Limits::default().max_channels(7);
        for limits in [
            TypedLimits::default()
                .max_message_bytes(1000)
                .with(channels()),
            TypedLimits::default()
                .with(channels())
                .max_message_bytes(1000),
            TypedLimits::default().with(channels().max_message_bytes(1000)),
            // The last of two sizes applies, as with any option.
            TypedLimits::default()
                .max_message_bytes(5)
                .with(channels().max_message_bytes(1000)),
        ] {
            assert_eq!(limits.message_bytes(), 1000);
            assert_eq!(limits.of_connection().get_max_channels(), 7);
        }
    }
}
