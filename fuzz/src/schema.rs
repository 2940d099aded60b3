//! Descriptions from any bytes.

use std::collections::BTreeSet;

use bytes::BytesMut;
use iip_rpc::codec::{CodecId, DecodeLimits, dynamic};
use iip_rpc::schema::compat::{Encoding, compare};
use iip_rpc::schema::file::{Limits, from_text, parse_description, to_text};
use iip_rpc::schema::fingerprint::service_fingerprint;
use iip_rpc::schema::openapi::OpenApi;

/// The codecs of values that are described.
const CODECS: [CodecId; 4] = [
    CodecId::BINCODE,
    CodecId::POSTCARD,
    CodecId::JSON,
    CodecId::MSGPACK,
];

/// Reads a description, as from a peer, and does with it all that a client or a tool does. What
/// follows after the first NUL is read as arguments of its methods.
pub fn schema(data: &[u8]) {
    let zero = data.iter().position(|&byte| byte == 0);
    let (json, body) = data.split_at(zero.unwrap_or(data.len()));
    let Ok(description) = parse_description(json, &Limits::default()) else {
        return;
    };
    let fingerprint = service_fingerprint(&description);
    assert_eq!(fingerprint, service_fingerprint(&description.clone()));
    for encoding in Encoding::ALL {
        let report = compare(&description, &description, encoding);
        // The text has a line for each difference, whatever their names contain.
        let lines = report.to_string().lines().count();
        assert_eq!(
            lines,
            report.differences.len() + usize::from(report.omitted > 0)
        );
    }
    let saved = to_text([&description]);
    if let Ok(read) = from_text(&saved) {
        assert_eq!(saved, to_text(&read));
    }
    let document = OpenApi::new("x", "1").service(&description).build();
    assert!(document.is_object());
    let limits = DecodeLimits::new();
    for method in &description.methods {
        for codec in CODECS {
            let types = &description.types;
            let read = dynamic::decode_arguments(codec, method, types, body, &limits);
            if let Ok(value) = read {
                let mut out = BytesMut::new();
                let _ = dynamic::encode_arguments(codec, method, types, &value, &mut out);
            }
        }
    }
}

/// Returns seeds: a description of every kind of type.
pub fn schema_seeds(everything: &str) -> BTreeSet<Vec<u8>> {
    let described = from_text(everything).into_iter().flatten();
    let seeds = described.filter_map(|service| serde_json::to_vec(&service).ok());
    seeds
        .map(|seed| [&seed[..], b"\0\x01\x02abc"].concat())
        .collect()
}
