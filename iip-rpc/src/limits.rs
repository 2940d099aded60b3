//! The limits of a connection, with the default that typed messages have.

use iip_core::Limits;

/// The largest typed message by default: 16 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What was set of the limits of a connection. What was not set has its default, whatever was set before or behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypedLimits(Limits);

impl TypedLimits {
    /// Everything anew, but for a size of messages that `limits` says nothing of.
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

    /// Those in force.
    pub(crate) fn get(&self) -> Limits {
        let limits = self.0.clone();
        let bytes = limits.own_message_bytes().unwrap_or(MAX_MESSAGE_BYTES);
        limits.max_message_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_for_typed_messages_outlives_limits_that_say_nothing_of_messages() {
        assert_eq!(
            TypedLimits::default().get().message_bytes(),
            MAX_MESSAGE_BYTES
        );
        let limits = TypedLimits::default().with(Limits::default().max_channels(7));
        assert_eq!(limits.get().message_bytes(), MAX_MESSAGE_BYTES);
        assert_eq!(limits.get().channels(), 7);
    }

    #[test]
    fn what_was_set_holds_in_whatever_order() {
        let channels = || Limits::default().max_channels(7);
        for limits in [
            TypedLimits::default()
                .max_message_bytes(1000)
                .with(channels()),
            TypedLimits::default()
                .with(channels())
                .max_message_bytes(1000),
            TypedLimits::default().with(channels().max_message_bytes(1000)),
            // Of two sizes the last one holds, as of any option.
            TypedLimits::default()
                .max_message_bytes(5)
                .with(channels().max_message_bytes(1000)),
        ] {
            assert_eq!(limits.get().message_bytes(), 1000);
            assert_eq!(limits.get().channels(), 7);
        }
    }
}
