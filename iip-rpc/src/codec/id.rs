//! Ids of codecs on the wire.

use std::fmt;

/// The number that identifies a codec in an envelope. The numbers never change; `docs/wire.md`
/// describes the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecId(u8);

impl CodecId {
    /// Bytes as they are; only for methods whose argument and result are bytes.
    pub const RAW: Self = Self(0);
    /// bincode 2 in its standard configuration.
    pub const BINCODE: Self = Self(1);
    /// postcard 1; with the feature `codec-postcard`.
    pub const POSTCARD: Self = Self(2);
    /// JSON.
    pub const JSON: Self = Self(3);
    /// MessagePack, structs as maps; with the feature `codec-msgpack`.
    pub const MSGPACK: Self = Self(4);
    /// Protobuf messages, for services that carry nothing else; with the feature `codec-prost`.
    pub const PROTOBUF: Self = Self(5);

    /// The default codec of a client: bincode, or JSON in a build without the feature
    /// `codec-bincode`.
    pub const DEFAULT: Self = if cfg!(feature = "codec-bincode") {
        Self::BINCODE
    } else {
        Self::JSON
    };

    /// Returns the id with this number, even if no codec is known for it. An envelope has room for
    /// numbers up to 63.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Returns `true` if this build can read and write values of this codec.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        (matches!(self, Self::BINCODE) && cfg!(feature = "codec-bincode"))
            || (matches!(self, Self::POSTCARD) && cfg!(feature = "codec-postcard"))
            || matches!(self, Self::JSON)
            || (matches!(self, Self::MSGPACK) && cfg!(feature = "codec-msgpack"))
            || (matches!(self, Self::PROTOBUF) && cfg!(feature = "codec-prost"))
    }

    /// Returns the codecs of this build.
    pub(crate) fn supported() -> impl Iterator<Item = Self> {
        let all = [
            Self::BINCODE,
            Self::POSTCARD,
            Self::JSON,
            Self::MSGPACK,
            Self::PROTOBUF,
        ];
        all.into_iter().filter(|codec| codec.is_supported())
    }

    /// Returns the advice for a build that does not have the codec.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::BINCODE => "enable the feature `codec-bincode` of iip-rpc",
            Self::POSTCARD => "enable the feature `codec-postcard` of iip-rpc",
            Self::MSGPACK => "enable the feature `codec-msgpack` of iip-rpc",
            Self::PROTOBUF => "enable the feature `codec-prost` of iip-rpc",
            _ => "choose another codec",
        }
    }

    /// Returns the codec for a method's own error: errors are serde types, and protobuf carries
    /// only messages.
    pub(crate) fn of_errors(self) -> Self {
        match self {
            Self::PROTOBUF => Self::JSON,
            other => other,
        }
    }
}

/// Writes the name, such as `bincode`, or `codec 9` if there is none.
impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RAW => f.pad("raw"),
            Self::BINCODE => f.pad("bincode"),
            Self::POSTCARD => f.pad("postcard"),
            Self::JSON => f.pad("json"),
            Self::MSGPACK => f.pad("msgpack"),
            Self::PROTOBUF => f.pad("protobuf"),
            Self(number) => write!(f, "codec {number}"),
        }
    }
}
