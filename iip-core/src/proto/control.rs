//! The exchanges of the protocol itself: reserved paths and their bodies. Pure.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::body::Body;
use crate::error::ProtocolError;
use crate::frame::ChannelId;
use crate::limits::Limits;
use crate::proto::slots::CallId;

pub(crate) const NEW_CHANNEL: &str = "/sys/new_channel";
pub(crate) const DELETE_CHANNEL: &str = "/sys/delete_channel";
/// The exchange of features; a Go server replies with the in-band code 102.
pub(crate) const HELLO: &str = "/sys/hello";
/// A ping: any reply shows that the peer is alive.
pub(crate) const PING: &str = "/sys/ping";
/// A call that stays open and carries messages that are not part of a channel, such as "cancel the
/// call on channel 5".
pub(crate) const CONTROL: &str = "/sys/control";

/// The body that a Go client sends if there is no argument. Source: recording `nil_body`.
pub(crate) const EMPTY_OBJECT: &[u8] = b"{}";

/// The reply to a complete request if it has no data. Source: recording `empty_response`.
pub(crate) const NO_RESPONSE: &[u8] = br#"{"code":101,"message":"handle no response"}"#;
/// The reply if no handler has the path. Source: recording `unknown_path`.
pub(crate) const NO_HANDLER: &[u8] = br#"{"code":102,"message":"handle error"}"#;
/// The reply if the server grants no more channels. Source: recording `new_channel_refused`.
pub(crate) const CHANNEL_LIMIT: &[u8] = br#"{"code":106,"message":"channel create limited"}"#;

/// Maximum size of a hello, or of a reply to a request for a channel, that is parsed.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024;

/// Maximum size of a frame of the control stream. Peers that use this library send 6 bytes at a
/// time.
const MAX_STREAM_FRAME_BYTES: usize = 64 * 1024;

/// Checks that a frame of the control stream is short, because each becomes many events.
pub(super) fn check_size(part: &Bytes) -> Result<(), ProtocolError> {
    if part.len() > MAX_STREAM_FRAME_BYTES {
        return Err(ProtocolError::BadControl { exchange: CONTROL });
    }
    Ok(())
}

/// Returns the reply with this data, which must not be empty.
pub(crate) fn or_no_response(body: Body) -> Body {
    if body.is_empty() {
        NO_RESPONSE.into()
    } else {
        body
    }
}

/// The purpose of a request that this side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// A call.
    Call(CallId),
    /// A call whose caller has gone: its reply is discarded.
    Abandoned,
    /// A request for a channel for calls.
    NewChannel,
    /// A request for the channel of the control stream.
    NewControlChannel,
    /// A request for the channel of one-way calls.
    NewOneWayChannel,
    Hello,
    /// A ping; the content of its reply does not matter.
    Ping,
    /// The control stream itself; its reply consists of messages of the same kind.
    Control,
}

impl Exchange {
    /// Returns the path of the request, or `None` if it is the caller's.
    pub(crate) const fn path(self) -> Option<&'static str> {
        match self {
            Self::Call { .. } | Self::Abandoned => None,
            Self::NewChannel | Self::NewControlChannel | Self::NewOneWayChannel => {
                Some(NEW_CHANNEL)
            }
            Self::Hello => Some(HELLO),
            Self::Ping => Some(PING),
            Self::Control => Some(CONTROL),
        }
    }
}

/// Encodes an in-band error, escaped as Go escapes JSON. Source: recording `handler_error`.
pub(crate) fn in_band_error(code: i64, message: &str) -> Bytes {
    let text = Value::from(message).to_string();
    let mut out = format!("{{\"code\":{code},\"message\":");
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out.push('}');
    Bytes::from(out)
}

/// Encodes a handler's own error.
pub(crate) fn handler_failure(text: &str) -> Bytes {
    in_band_error(-1, &format!("handler fail:{text}"))
}

pub(crate) fn grant(channel: ChannelId) -> Bytes {
    Bytes::from(format!("{{\"code\":0,\"channel_id\":{}}}", channel.0))
}

/// The fields that are read from the objects of the protocol itself. Others are skipped without
/// being kept, so that what a peer sends costs no more than its bytes. A field of an unexpected
/// type is treated as missing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Fields {
    code: Scalar,
    message: Scalar,
    channel_id: Scalar,
    iip: Scalar,
    control: Scalar,
    ping: Scalar,
    notice: Scalar,
    one_way: Scalar,
    stream_window: Scalar,
    channels: Scalar,
    max_frame: Scalar,
}

impl Fields {
    fn read(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_BODY_BYTES {
            return None;
        }
        serde_json::from_slice(body).ok()
    }
}

/// A number or a text; any other value is `Other`.
#[derive(Debug, Default)]
enum Scalar {
    #[default]
    Other,
    Number(i128),
    Text(String),
}

impl Scalar {
    fn number<T: TryFrom<i128>>(&self) -> Option<T> {
        match self {
            Self::Number(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    fn is_one(&self) -> bool {
        matches!(self, Self::Number(1))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Parses the reply to `/sys/new_channel`: the id, or the code and message of the rejection.
///
/// Field order and further fields do not matter. Source: recording `new_channel_extra_fields`.
pub(crate) fn parse_grant(body: &[u8]) -> Option<Result<ChannelId, (i64, String)>> {
    let fields = Fields::read(body)?;
    let code = fields.code.number::<i64>()?;
    if code != 0 {
        let message = match fields.message {
            Scalar::Text(message) => message,
            _ => String::new(),
        };
        return Some(Err((code, message.chars().take(256).collect())));
    }
    let id = fields.channel_id.number::<u32>()?;
    // Rule S2: an id in a grant is never 0.
    (id != 0).then_some(Ok(ChannelId(id)))
}

/// The description of itself that each side sends right after connecting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hello {
    /// The whole hello of the peer as JSON, for the layers above.
    pub(crate) text: Bytes,
    /// The peer has a control stream.
    pub(crate) control: bool,
    /// The peer replies to pings.
    pub(crate) ping: bool,
    /// The peer wants to be notified when the server is going away.
    pub(crate) notice: bool,
    /// The peer accepts one-way calls.
    pub(crate) one_way: bool,
    /// Number of bytes of a stream that the peer accepts before it grants more.
    pub(crate) stream_window: Option<usize>,
    /// Maximum number of channels with a call on them.
    pub(crate) channels: Option<usize>,
    /// Maximum size of a frame that the peer accepts.
    pub(crate) max_frame: Option<usize>,
}

impl Hello {
    /// Encodes the hello of this side. `announce` is an object of the layers above whose fields are
    /// added; the builders reject any other value.
    pub(crate) fn body(announce: &Value, limits: &Limits, reply: bool) -> Bytes {
        let mut hello = announce.as_object().cloned().unwrap_or_default();
        // These describe what this side does, so the layers above cannot replace them.
        let fields = [
            ("iip", 1),
            ("control", 1),
            ("ping", 1),
            ("notice", 1),
            ("one_way", 1),
            ("max_frame", limits.get_max_frame_bytes()),
            ("stream_window", limits.get_stream_window()),
            ("channels", limits.get_max_channels()),
        ];
        // The code distinguishes a reply from that of a Go server, which is an error.
        let code = reply.then_some(("code", 0));
        let fields = fields.into_iter().chain(code);
        hello.extend(fields.map(|(name, number)| (name.to_owned(), number.into())));
        Bytes::from(Value::Object(hello).to_string())
    }

    /// Parses a hello. Returns `None` if the peer does not know it: a Go server replies with the
    /// in-band code 102.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let fields = Fields::read(body)?;
        let is_hello = fields.iip.number::<u64>()? >= 1;
        is_hello.then(|| Self {
            text: Bytes::copy_from_slice(body),
            control: fields.control.is_one(),
            ping: fields.ping.is_one(),
            notice: fields.notice.is_one(),
            one_way: fields.one_way.is_one(),
            // A value that makes no sense is treated as missing: the peer then gets no streams, has
            // no limit of channels, or gets frames of the usual size.
            stream_window: fields.stream_window.number().filter(|&bytes| bytes > 0),
            channels: fields.channels.number().filter(|&channels| channels > 0),
            max_frame: fields.max_frame.number().filter(|&bytes| bytes >= 1024),
        })
    }
}

/// One message of the control stream: a type, the length of the payload, and the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMessage {
    /// The caller of the call on this channel has gone.
    Cancel(ChannelId),
    /// The server takes no further calls on this connection: clients open another.
    GoingAway,
    /// From now on the requests on this channel are one-way.
    OneWay(ChannelId),
}

impl ControlMessage {
    const CANCEL: u8 = 1;
    const GOING_AWAY: u8 = 2;
    const ONE_WAY: u8 = 3;

    /// Encodes a message without a meaning.
    pub(crate) fn nothing() -> Bytes {
        Bytes::from_static(&[0, 0])
    }

    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(6);
        let (kind, channel) = match self {
            Self::Cancel(channel) => (Self::CANCEL, Some(channel)),
            Self::GoingAway => (Self::GOING_AWAY, None),
            Self::OneWay(channel) => (Self::ONE_WAY, Some(channel)),
        };
        out.put_u8(kind);
        out.put_u8(if channel.is_some() { 4 } else { 0 });
        if let Some(channel) = channel {
            out.put_u32(channel.0);
        }
        out.freeze()
    }

    /// Reads the next message of a frame. Unknown types are skipped, so that later versions may add
    /// some.
    pub fn next(part: &mut Bytes) -> Option<Self> {
        while part.len() >= 2 {
            let (kind, len) = (part.get_u8(), usize::from(part.get_u8()));
            // A message is within one frame, so the rest does not follow in the next one.
            if part.len() < len {
                part.clear();
                return None;
            }
            let mut payload = part.split_to(len);
            match (kind, len) {
                (Self::CANCEL, 4) => return Some(Self::Cancel(ChannelId(payload.get_u32()))),
                (Self::GOING_AWAY, 0) => return Some(Self::GoingAway),
                (Self::ONE_WAY, 4) => return Some(Self::OneWay(ChannelId(payload.get_u32()))),
                _ => {}
            }
        }
        None
    }
}
