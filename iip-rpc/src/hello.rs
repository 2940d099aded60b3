//! What typed peers tell each other when they connect.

use iip_core::Peer;
use serde_json::json;

use crate::codec::CodecId;

/// What both sides say in their hello.
pub(crate) fn announcement() -> serde_json::Value {
    let codecs: Vec<u8> = CodecId::supported().map(CodecId::as_u8).collect();
    json!({ "rpc": { "envelope": 0, "codecs": codecs } })
}

/// What a server said about typed calls.
pub(crate) struct RpcPeer {
    /// It understands the envelope. A Go server does not: it gets plain JSON.
    envelope: bool,
    codecs: Vec<u8>,
}

impl RpcPeer {
    pub(crate) fn read(peer: &Peer) -> Self {
        let rpc = peer.hello().and_then(|hello| hello.get("rpc"));
        let codecs = rpc
            .and_then(|rpc| rpc.get("codecs"))
            .and_then(|codecs| codecs.as_array());
        let codecs = codecs
            .into_iter()
            .flatten()
            .filter_map(|id| u8::try_from(id.as_u64()?).ok())
            .collect();
        Self {
            envelope: rpc.is_some(),
            codecs,
        }
    }

    /// The codec to use: the one wanted, or JSON where the server does not know it; `None` without envelope.
    pub(crate) fn codec(&self, wanted: CodecId) -> Option<CodecId> {
        let known = self.codecs.contains(&wanted.as_u8());
        self.envelope
            .then_some(if known { wanted } else { CodecId::JSON })
    }
}
