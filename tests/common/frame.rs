//! Frames according to the protocol's text, implemented a second time, so that the tests do not
//! rely on the encoder and decoder under test.

/// One frame: status, path, NUL, channel, length, body.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct RawFrame {
    pub(crate) status: u8,
    pub(crate) path: Vec<u8>,
    pub(crate) channel: u32,
    pub(crate) body: Vec<u8>,
}

impl RawFrame {
    pub(crate) fn new(
        status: u8,
        path: impl AsRef<[u8]>,
        channel: u32,
        body: impl AsRef<[u8]>,
    ) -> Self {
        Self {
            status,
            path: path.as_ref().to_vec(),
            channel,
            body: body.as_ref().to_vec(),
        }
    }

    /// A request of one frame.
    pub(crate) fn request(path: impl AsRef<[u8]>, channel: u32, body: impl AsRef<[u8]>) -> Self {
        Self::new(1, path, channel, body)
    }

    /// A reply of one frame.
    pub(crate) fn reply(path: impl AsRef<[u8]>, channel: u32, body: impl AsRef<[u8]>) -> Self {
        Self::new(5, path, channel, body)
    }

    /// The request of a client for another channel.
    pub(crate) fn new_channel() -> Self {
        Self::request("/sys/new_channel", 0, "{}")
    }

    /// The Go server's grant of channel `id`.
    pub(crate) fn grant(id: u32) -> Self {
        Self::reply(
            "/sys/new_channel",
            0,
            format!("{{\"code\":0,\"channel_id\":{id}}}"),
        )
    }

    /// The bytes before the body, claiming a body of `len` bytes.
    pub(crate) fn head(status: u8, path: impl AsRef<[u8]>, channel: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![status];
        bytes.extend_from_slice(path.as_ref());
        bytes.push(0);
        bytes.extend_from_slice(&channel.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let len = u32::try_from(self.body.len()).expect("a test frame fits its length field");
        let mut bytes = Self::head(self.status, &self.path, self.channel, len);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The first frame in `bytes` and its length, or nothing when `bytes` ends before the frame
    /// does.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let nul = 1 + bytes.get(1..)?.iter().position(|&byte| byte == 0)?;
        let head = bytes.get(nul + 1..nul + 9)?;
        let (channel, len) = head.split_at(4);
        let channel = u32::from_be_bytes(channel.try_into().expect("four bytes"));
        let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        let body = bytes.get(nul + 9..nul + 9 + len)?;
        Some((
            Self::new(bytes[0], &bytes[1..nul], channel, body),
            nul + 9 + len,
        ))
    }

    /// All frames in `bytes`, and the number of bytes after the last one.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> (Vec<Self>, usize) {
        let mut frames = Vec::new();
        while let Some((frame, len)) = Self::decode(bytes) {
            frames.push(frame);
            bytes = &bytes[len..];
        }
        (frames, bytes.len())
    }

    pub(crate) fn path_text(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Short, because a failed assertion prints it: long paths and bodies are cut.
impl std::fmt::Debug for RawFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "status {} channel {} path {} body {}",
            self.status,
            self.channel,
            brief(&self.path),
            brief(&self.body)
        )
    }
}

/// The first bytes of `bytes`, escaped, and the total length when that is not all.
pub(crate) fn brief(bytes: &[u8]) -> String {
    const SHOWN: usize = 100;
    if bytes.len() <= SHOWN {
        format!("\"{}\"", bytes.escape_ascii())
    } else {
        format!(
            "\"{}\"... ({} bytes)",
            bytes[..SHOWN].escape_ascii(),
            bytes.len()
        )
    }
}
