//! Contents of the hello that typed peers exchange when they connect.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;

use iip_core::Peer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::codec::CodecId;
use crate::compression::{Compression, CompressionId, Compressor};
use crate::schema::announced::Announced;
use crate::schema::builds::PeerBuild;

/// The contents of the hello of both sides. Only a server announces the build of its services.
pub(crate) fn announcement(max_compression_ratio: u32, build: Option<Announced>) -> Value {
    let codecs: Vec<u8> = CodecId::supported().map(CodecId::as_u8).collect();
    let mut rpc = json!({ "envelope": 0, "codecs": codecs });
    let algorithms: Vec<u8> = CompressionId::supported()
        .map(CompressionId::as_u8)
        .collect();
    if !algorithms.is_empty() {
        rpc["compression"] =
            json!({ "algorithms": algorithms, "max_ratio": max_compression_ratio });
    }
    if let Some(build) = build {
        rpc["fp"] = Value::from(build.as_str());
    }
    json!({ "rpc": rpc })
}

/// The peer's announcement about typed calls.
pub(crate) struct RpcPeer {
    /// `true` if it supports the envelope. A Go server does not: it gets plain JSON.
    envelope: bool,
    codecs: Vec<u8>,
    /// The algorithms that it can decompress.
    compression: Vec<u8>,
    /// Maximum ratio of the size of a message to this peer to its compressed size.
    max_ratio: Option<NonZeroU32>,
    /// Its build, if it has announced one.
    pub(crate) build: Option<Box<PeerBuild>>,
    /// Number of health states that it watches, if it is a client.
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
            fp,
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
            build: Announced::read(&fp).map(|build| Box::new(PeerBuild::new(build))),
            watches: AtomicUsize::new(0),
        }
    }

    /// The codec to use: `wanted`, or JSON if the peer does not support it; `None` without
    /// envelope.
    pub(crate) fn codec(&self, wanted: CodecId) -> Option<CodecId> {
        let codec = if self.has(wanted) {
            wanted
        } else {
            CodecId::JSON
        };
        self.envelope.then_some(codec)
    }

    /// Returns `true` if it supports the envelope and this codec.
    pub(crate) fn has(&self, codec: CodecId) -> bool {
        self.envelope && self.codecs.contains(&codec.as_u8())
    }

    /// The compressor for messages of up to `limit` bytes to this peer, if it supports the
    /// algorithm.
    pub(crate) fn packer(&self, compression: Compression, limit: usize) -> Option<Compressor> {
        let known = self.compression.contains(&compression.id().as_u8());
        let max_ratio = self.max_ratio.filter(|_| known)?;
        Some(Compressor::new(compression, max_ratio, limit))
    }
}

/// The part of a hello that is decoded. Everything else is skipped, and not kept.
#[derive(Deserialize)]
struct Hello {
    rpc: Option<Announcement>,
}

/// The object that [`announcement`] writes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Announcement {
    codecs: Vec<u8>,
    compression: Option<Compressions>,
    /// The fingerprint of the services of a server.
    fp: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Compressions {
    algorithms: Vec<u8>,
    max_ratio: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_a_build_takes_sixteen_bytes_of_the_hello() {
        let build = Announced::read("AZaz09-_").expect("a fingerprint");
        let size = |build| announcement(100, build).to_string().len();
        assert_eq!(size(Some(build)), size(None) + 16);
    }
}
