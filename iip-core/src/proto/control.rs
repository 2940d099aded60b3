//! The exchanges of the protocol itself: reserved paths and their bodies. Pure.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::frame::ChannelId;
use crate::limits::Limits;

pub(crate) const NEW_CHANNEL: &str = "/sys/new_channel";
pub(crate) const DELETE_CHANNEL: &str = "/sys/delete_channel";
/// What the other side can do; a Go server answers it with the in-band code 102.
pub(crate) const HELLO: &str = "/sys/hello";
/// A request that any answer will do for: it shows that the peer lives.
pub(crate) const PING: &str = "/sys/ping";
/// A call that stays open and carries what has no channel of its own, such as "cancel the call on
/// channel 5".
pub(crate) const CONTROL: &str = "/sys/control";

/// The body a Go client sends where there is nothing to say. Source: recording `nil_body`.
pub(crate) const EMPTY_OBJECT: &[u8] = b"{}";

/// A complete request without data in its answer. Source: recording `empty_response`.
pub(crate) const NO_RESPONSE: &[u8] = br#"{"code":101,"message":"handle no response"}"#;
/// No handler has this path. Source: recording `unknown_path`.
pub(crate) const NO_HANDLER: &[u8] = br#"{"code":102,"message":"handle error"}"#;
/// More channels than the server wants. Source: recording `new_channel_refused`.
pub(crate) const CHANNEL_LIMIT: &[u8] = br#"{"code":106,"message":"channel create limited"}"#;

/// The longest hello, or answer to a request for a channel, that is read.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024;

/// What a request this side sent was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// A caller's; the token finds it again.
    Call {
        token: usize,
    },
    /// A caller's who has gone: its answer is swallowed.
    Abandoned,
    /// A channel for the callers.
    NewChannel,
    /// The channel of the control stream.
    NewControlChannel,
    /// The channel of requests without answers.
    NewOneWayChannel,
    Hello,
    /// Any answer will do.
    Ping,
    /// The control stream itself; what it is answered with are messages of the same kind.
    Control,
}

impl Exchange {
    /// The path of its request, unless that is the caller's.
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

/// The bytes of an in-band error, escaped as Go escapes JSON. Source: recording `handler_error`.
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

/// What a handler's own error looks like to the peer.
pub(crate) fn handler_failure(text: &str) -> Bytes {
    in_band_error(-1, &format!("handler fail:{text}"))
}

pub(crate) fn grant(channel: ChannelId) -> Bytes {
    Bytes::from(format!("{{\"code\":0,\"channel_id\":{}}}", channel.0))
}

/// The fields that are read of the objects of the protocol itself. Others are skipped without being
/// kept, so that what a peer sends costs no more than its bytes; a field of another kind than is
/// expected is as good as none.
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

/// A number or a text; of anything else, nothing.
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

/// Reads the answer to `/sys/new_channel`: the id, or the refusal's code and message.
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
    (id != 0).then_some(Ok(ChannelId(id)))
}

/// What one side tells the other right after connecting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hello {
    /// Everything the peer said, JSON, for the layers above.
    pub(crate) text: Bytes,
    /// It has a control stream.
    pub(crate) control: bool,
    /// It answers pings.
    pub(crate) ping: bool,
    /// It wants to be told when the server is going away.
    pub(crate) notice: bool,
    /// It takes requests that are not answered.
    pub(crate) one_way: bool,
    /// How many bytes of a stream it takes before it grants more.
    pub(crate) stream_window: Option<usize>,
    /// The largest frame it takes.
    pub(crate) max_frame: Option<usize>,
}

impl Hello {
    /// This side's hello. `announce` is an object of the layers above; its fields stand beside
    /// ours.
    pub(crate) fn body(announce: &Value, limits: &Limits, reply: bool) -> Bytes {
        let mut hello = json!({
            "iip": 1,
            "control": 1,
            "ping": 1,
            "notice": 1,
            "one_way": 1,
            "max_frame": limits.frame_bytes(),
            "stream_window": limits.window(),
        });
        if let (Some(fields), Some(more)) = (hello.as_object_mut(), announce.as_object()) {
            if reply {
                fields.insert("code".into(), 0.into());
            }
            fields.extend(more.clone());
        }
        Bytes::from(hello.to_string())
    }

    /// Reads a hello, or `None` if the peer knows none: a Go server answers with the in-band code
    /// 102.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let fields = Fields::read(body)?;
        let is_hello = fields.iip.number::<u64>()? >= 1;
        is_hello.then(|| Self {
            text: Bytes::copy_from_slice(body),
            control: fields.control.is_one(),
            ping: fields.ping.is_one(),
            notice: fields.notice.is_one(),
            one_way: fields.one_way.is_one(),
            stream_window: fields.stream_window.number().filter(|&bytes| bytes > 0),
            max_frame: fields.max_frame.number().filter(|&bytes| bytes >= 1024),
        })
    }
}

/// One message of the control stream: a type, the length of what follows, and that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlMessage {
    /// The caller of the call on this channel has gone.
    Cancel(ChannelId),
    /// The server takes no further calls on this connection: clients make another.
    GoingAway,
    /// From now on the requests on this channel are not answered.
    OneWay(ChannelId),
}

impl ControlMessage {
    const CANCEL: u8 = 1;
    const GOING_AWAY: u8 = 2;
    const ONE_WAY: u8 = 3;

    /// A message that says nothing.
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

    /// Reads the next message of a part; unknown types are skipped, so that later versions may add
    /// some.
    pub(crate) fn next(part: &mut Bytes) -> Option<Self> {
        while part.len() >= 2 {
            let (kind, len) = (part.get_u8(), usize::from(part.get_u8()));
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
