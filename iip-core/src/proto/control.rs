//! The exchanges of the protocol itself: reserved paths and their bodies. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::frame::ChannelId;
use crate::limits::Limits;

pub(crate) const NEW_CHANNEL: &str = "/sys/new_channel";
pub(crate) const DELETE_CHANNEL: &str = "/sys/delete_channel";
/// What the other side can do; a Go server answers it with the in-band code 102.
pub(crate) const HELLO: &str = "/sys/hello";
/// A request that any answer will do for: it shows that the peer lives.
pub(crate) const PING: &str = "/sys/ping";
/// A call that stays open and carries what has no channel of its own, such as "cancel the call on channel 5".
pub(crate) const CONTROL: &str = "/sys/control";

/// The body a Go client sends where there is nothing to say. Source: recording `nil_body`.
pub(crate) const EMPTY_OBJECT: &[u8] = b"{}";

/// A complete request without data in its answer. Source: recording `empty_response`.
pub(crate) const NO_RESPONSE: &[u8] = br#"{"code":101,"message":"handle no response"}"#;
/// No handler has this path. Source: recording `unknown_path`.
pub(crate) const NO_HANDLER: &[u8] = br#"{"code":102,"message":"handle error"}"#;
/// More channels than the server wants. Source: recording `new_channel_refused`.
pub(crate) const CHANNEL_LIMIT: &[u8] = br#"{"code":106,"message":"channel create limited"}"#;

/// The longest hello that is read.
pub(crate) const MAX_HELLO_BYTES: usize = 16 * 1024;

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

/// Reads the answer to `/sys/new_channel`: the id, or the refusal's code and message.
///
/// Field order and further fields do not matter. Source: recording `new_channel_extra_fields`.
pub(crate) fn parse_grant(body: &[u8]) -> Option<Result<ChannelId, (i64, String)>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let code = value.get("code")?.as_i64()?;
    if code != 0 {
        let message = value.get("message").and_then(Value::as_str).unwrap_or("");
        return Some(Err((code, message.chars().take(256).collect())));
    }
    let id = value.get("channel_id")?.as_u64()?;
    u32::try_from(id)
        .ok()
        .filter(|&id| id != 0)
        .map(|id| Ok(ChannelId(id)))
}

/// What one side tells the other right after connecting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hello {
    /// Everything the peer said, for the layers above.
    pub(crate) value: Value,
}

impl Hello {
    /// This side's hello. `announce` is an object of the layers above; its fields stand beside ours.
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

    /// Reads a hello, or `None` if the peer knows none: a Go server answers with the in-band code 102.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_HELLO_BYTES {
            return None;
        }
        let value: Value = serde_json::from_slice(body).ok()?;
        (value.get("iip")?.as_u64()? >= 1).then_some(Self { value })
    }

    pub(crate) fn control(&self) -> bool {
        self.value.get("control").and_then(Value::as_u64) == Some(1)
    }

    /// It answers pings.
    pub(crate) fn ping(&self) -> bool {
        self.value.get("ping").and_then(Value::as_u64) == Some(1)
    }

    /// It wants to be told when the server is going away.
    pub(crate) fn notice(&self) -> bool {
        self.value.get("notice").and_then(Value::as_u64) == Some(1)
    }

    /// It takes requests that are not answered.
    pub(crate) fn one_way(&self) -> bool {
        self.value.get("one_way").and_then(Value::as_u64) == Some(1)
    }

    /// How many bytes of a stream it takes before it grants more.
    pub(crate) fn stream_window(&self) -> Option<usize> {
        let bytes = self.value.get("stream_window")?.as_u64()?;
        usize::try_from(bytes).ok().filter(|&bytes| bytes > 0)
    }

    pub(crate) fn max_frame(&self) -> Option<usize> {
        let bytes = self.value.get("max_frame")?.as_u64()?;
        usize::try_from(bytes).ok().filter(|&bytes| bytes >= 1024)
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

    /// Reads the next message of a part; unknown types are skipped, so that later versions may add some.
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
