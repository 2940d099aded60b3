//! Writes the seeds of the fuzzers: the recorded frames of `tests/transcripts`, values of the zoo,
//! the documents of `iip-rules/tests/vectors.json`, and saved descriptions.
//!
//! Run `cargo run --example seeds` in this folder. It fills `corpus/<target>`, which is not
//! committed.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead, RequestHead, ServerTiming, write_status_reply};
use iip_rpc::{Code, Metadata, Status};
use serde_json::Value;

/// Maximum size of a recording; larger ones cover nothing more.
const MAX_SEED_BYTES: usize = 8 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut written = 0;
    let mut write = |target: &str, seeds: BTreeSet<Vec<u8>>| -> Result<(), Box<dyn Error>> {
        let folder = here.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed_{number:03}")), seed)?;
            written += 1;
        }
        Ok(())
    };

    let (mut decoder, mut machine) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(here.join("../tests/transcripts"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let transcript: Value = serde_json::from_slice(&fs::read(&path)?)?;
        for (direction, receiver) in [("c2s", 0), ("s2c", 1)] {
            for bytes in directions(&transcript, direction) {
                for how in [0, 4 * 15 + 2] {
                    decoder.insert([&[receiver | how], &bytes[..]].concat());
                }
                for how in [0b1000_0111, 0b0000_1011] {
                    machine.insert([&[receiver, how], &bytes[..]].concat());
                }
            }
        }
    }
    // Operations on a pair: open, call, write, read, reply, and again.
    for how in [0, 1] {
        let turn = [
            0x00, 0x01, 1, 0, 5, 0x06, 0x87, 4, 0, 0x05, 0, 6, 0x85, 0, 3, 0x86, 0x07, 9, 9, 0x81,
            0, 1, 7, 0x03, 1, 0x04, 0,
        ];
        machine.insert([&[2, how], &turn.repeat(6)[..]].concat());
    }
    write("decoder", decoder)?;
    write("machine", machine)?;
    write("envelope", envelopes()?)?;
    let codecs = [
        ("codec_bincode", CodecId::BINCODE),
        ("codec_json", CodecId::JSON),
        ("codec_msgpack", CodecId::MSGPACK),
        ("codec_postcard", CodecId::POSTCARD),
        ("codec_protobuf", CodecId::PROTOBUF),
    ];
    for (target, codec) in codecs {
        write(target, iip_fuzz::codec_seeds(codec).into_iter().collect())?;
    }
    let orders = "../iip-schema/tests/file/orders.schema.json";
    let orders = fs::read_to_string(here.join(orders))?;
    write("schema", iip_fuzz::schema_seeds(&orders))?;
    let vectors = fs::read(here.join("../iip-rules/tests/vectors.json"))?;
    write(
        "rules",
        iip_fuzz::rules_seeds(&serde_json::from_slice(&vectors)?),
    )?;
    println!("{written} seeds in {}", here.join("corpus").display());
    Ok(())
}

/// Returns the bytes of one direction, one entry per connection.
fn directions(transcript: &Value, direction: &str) -> Vec<Vec<u8>> {
    let mut connections: Vec<Vec<u8>> = Vec::new();
    for step in transcript["steps"].as_array().into_iter().flatten() {
        let (Some(hex), Some(connection)) = (step["hex"].as_str(), step["conn"].as_u64()) else {
            continue;
        };
        if step["dir"] != direction {
            continue;
        }
        let connection = usize::try_from(connection).unwrap_or(0);
        if connections.len() <= connection {
            connections.resize(connection + 1, Vec::new());
        }
        connections[connection].extend(unhex(hex));
    }
    connections.retain(|bytes| !bytes.is_empty() && bytes.len() <= MAX_SEED_BYTES);
    connections
}

fn unhex(hex: &str) -> impl Iterator<Item = u8> {
    (0..hex.len() / 2)
        .filter_map(move |at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
}

fn envelopes() -> Result<BTreeSet<Vec<u8>>, Box<dyn Error>> {
    let mut metadata = Metadata::new();
    metadata.insert_text("trace", "abc")?;
    metadata.append("data", &b"\x00\xff"[..])?;
    let mut seeds = BTreeSet::new();
    for metadata in [Metadata::new(), metadata] {
        for time in [None, Some(Duration::from_millis(1500))] {
            let mut out = BytesMut::new();
            RequestHead::write(CodecId::JSON, time, &metadata, &mut out);
            out.extend_from_slice(b"{\"a\":1}");
            seeds.insert(out.to_vec());
            let timing = time.map(|time| ServerTiming {
                queue: time,
                handler: time / 2,
            });
            out.clear();
            ReplyHead::write(
                CodecId::BINCODE,
                Outcome::Value,
                timing,
                &metadata,
                &mut out,
            );
            out.extend_from_slice(b"\x01\x02");
            seeds.insert(out.to_vec());
            out.clear();
            let status = Status::new(Code::NotFound, "no such thing")
                .with_details(&b"details"[..])
                .with_metadata(metadata.clone());
            write_status_reply(CodecId::BINCODE, &status, timing, &mut out);
            seeds.insert(out.to_vec());
        }
    }
    // The compressed requests and replies of docs/wire.md: 300 times an x.
    let zstd = "8041af0228b52ffd602f005d000020fb2c01780100282a2002";
    let lz4 = "8081af024ffb2c01780100ff1360787878787878";
    seeds.extend([zstd, lz4].map(|hex| unhex(hex).collect()));
    seeds.insert(br#"{"code":102,"message":"handle error","error":{"a":1}}"#.to_vec());
    Ok(seeds)
}
