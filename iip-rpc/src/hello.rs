//! What typed peers tell each other when they connect.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;

use iip_core::Peer;
use serde_json::{Value, json};

use crate::codec::CodecId;
use crate::compression::{Compression, CompressionId, Packer};

/// What both sides say in their hello.
pub(crate) fn announcement(max_compression_ratio: u32) -> Value {
    let codecs: Vec<u8> = CodecId::supported().map(CodecId::as_u8).collect();
    let mut rpc = json!({ "envelope": 0, "codecs": codecs });
    let algorithms: Vec<u8> = CompressionId::supported()
        .map(CompressionId::as_u8)
        .collect();
    if !algorithms.is_empty() {
        rpc["compression"] =
            json!({ "algorithms": algorithms, "max_ratio": max_compression_ratio });
    }
    json!({ "rpc": rpc })
}

/// What the other side said about typed calls.
pub(crate) struct RpcPeer {
    /// It understands the envelope. A Go server does not: it gets plain JSON.
    envelope: bool,
    codecs: Vec<u8>,
    /// What it can decompress.
    compression: Vec<u8>,
    /// How many times as large as its compressed form a message to it may be.
    max_ratio: Option<NonZeroU32>,
    /// How many health states it watches, if it is a client.
    pub(crate) watches: AtomicUsize,
}

impl RpcPeer {
    pub(crate) fn read(peer: &Peer) -> Self {
        let rpc = peer.hello().and_then(|hello| hello.get("rpc"));
        let compression = rpc.and_then(|rpc| rpc.get("compression"));
        let max_ratio = compression.and_then(|compression| compression.get("max_ratio")?.as_u64());
        Self {
            envelope: rpc.is_some(),
            codecs: numbers(rpc, "codecs"),
            compression: numbers(compression, "algorithms"),
            max_ratio: max_ratio
                .and_then(|ratio| NonZeroU32::new(u32::try_from(ratio).unwrap_or(u32::MAX))),
            watches: AtomicUsize::new(0),
        }
    }

    /// The codec to use: the one wanted, or JSON where the server does not know it; `None` without envelope.
    pub(crate) fn codec(&self, wanted: CodecId) -> Option<CodecId> {
        let known = self.codecs.contains(&wanted.as_u8());
        self.envelope
            .then_some(if known { wanted } else { CodecId::JSON })
    }

    /// What compresses messages of up to `limit` bytes for this peer, if it can read what is wanted.
    pub(crate) fn packer(&self, compression: Compression, limit: usize) -> Option<Packer> {
        let known = self.compression.contains(&compression.id().as_u8());
        let max_ratio = self.max_ratio.filter(|_| known)?;
        Some(Packer::new(compression, max_ratio, limit))
    }
}

/// The small numbers in a list; none where there is no list.
fn numbers(object: Option<&Value>, field: &str) -> Vec<u8> {
    let list = object.and_then(|object| object.get(field)?.as_array());
    let numbers = list.into_iter().flatten();
    numbers
        .filter_map(|number| u8::try_from(number.as_u64()?).ok())
        .collect()
}
