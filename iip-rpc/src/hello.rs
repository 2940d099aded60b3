//! What typed peers tell each other when they connect.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;

use iip_core::Peer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::codec::CodecId;
use crate::compression::{Compression, CompressionId, Compressor};

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
        let hello = peer.hello();
        let hello = hello.and_then(|hello| serde_json::from_slice::<Hello>(hello).ok());
        let rpc = hello.and_then(|hello| hello.rpc);
        let envelope = rpc.is_some();
        let Announcement {
            codecs,
            compression,
        } = rpc.unwrap_or_default();
        let Compressions {
            algorithms,
            max_ratio,
        } = compression.unwrap_or_default();
        let max_ratio = max_ratio.map(|ratio| u32::try_from(ratio).unwrap_or(u32::MAX));
        Self {
            envelope,
            codecs,
            compression: algorithms,
            max_ratio: max_ratio.and_then(NonZeroU32::new),
            watches: AtomicUsize::new(0),
        }
    }

    /// The codec to use: the one wanted, or JSON where the server does not know it; `None` without
    /// envelope.
    pub(crate) fn codec(&self, wanted: CodecId) -> Option<CodecId> {
        let known = self.codecs.contains(&wanted.as_u8());
        self.envelope
            .then_some(if known { wanted } else { CodecId::JSON })
    }

    /// What compresses messages of up to `limit` bytes for this peer, if it can read what is
    /// wanted.
    pub(crate) fn packer(&self, compression: Compression, limit: usize) -> Option<Compressor> {
        let known = self.compression.contains(&compression.id().as_u8());
        let max_ratio = self.max_ratio.filter(|_| known)?;
        Some(Compressor::new(compression, max_ratio, limit))
    }
}

/// What is read of a hello. Everything else is skipped, and not kept.
#[derive(Deserialize)]
struct Hello {
    rpc: Option<Announcement>,
}

/// What [`announcement`] writes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Announcement {
    codecs: Vec<u8>,
    compression: Option<Compressions>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Compressions {
    algorithms: Vec<u8>,
    max_ratio: Option<u64>,
}
