//! The recorded transcripts in `tests/transcripts`; their README describes the format.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::frame::RawFrame;
use super::generate;

/// The sender of the bytes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ClientToServer,
    ServerToClient,
}

/// One recorded scenario.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) name: String,
    /// The server was a script made for the recording, not the Go server.
    pub(crate) fake_server: bool,
    /// The client was a script that sends prepared bytes, not a Go client.
    pub(crate) raw_client: bool,
    pub(crate) steps: Vec<Step>,
    pub(crate) frames: Vec<Listed>,
}

/// One entry of a recording, in order.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Counts the connections of the recording.
    pub(crate) connection: usize,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A complete frame.
    Frame(Direction, Arc<Recorded>),
    /// Bytes that end before their frame does.
    Cut(Direction, Arc<[u8]>),
    Connected,
    ClientClosed {
        first: bool,
    },
    ServerClosed {
        first: bool,
        reset: bool,
    },
    /// Remarks of the recorder that are not steps of either side.
    Remark,
}

/// The bytes of one recorded frame.
pub(crate) struct Recorded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frame: RawFrame,
    /// The digests that a recording contains instead of the bytes: of the frame, and of the body.
    pub(crate) digests: Option<(String, Option<String>)>,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.frame.fmt(f)
    }
}

/// One entry of a recording's own decoding.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) step: usize,
    pub(crate) connection: usize,
    pub(crate) direction: Direction,
    pub(crate) status: u8,
    pub(crate) path: String,
    pub(crate) channel: u32,
    pub(crate) len: usize,
    pub(crate) body: Option<String>,
}

impl Transcript {
    /// Reads `tests/transcripts/NAME.json`.
    pub(crate) fn load(name: &str) -> Self {
        let file = folder().join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            text_of(&json, "name"),
            name,
            "a transcript is named like its file"
        );
        let versions = &json["peer_versions"];
        Self {
            name: name.to_owned(),
            fake_server: text_of(versions, "server").starts_with("godrive fakeserver"),
            raw_client: text_of(versions, "client") == "raw client",
            steps: list(&json, "steps")
                .iter()
                .map(|step| self::step(name, step))
                .collect(),
            frames: list(&json, "frames").iter().map(listed).collect(),
        }
    }

    /// Complete frames sent by `direction` on one connection, in order.
    pub(crate) fn frames_of(&self, connection: usize, direction: Direction) -> Vec<Arc<Recorded>> {
        self.steps
            .iter()
            .filter(|step| step.connection == connection)
            .filter_map(|step| match &step.what {
                What::Frame(sender, recorded) if *sender == direction => Some(recorded.clone()),
                _ => None,
            })
            .collect()
    }

    /// Every byte sent by `direction` on one connection.
    pub(crate) fn bytes_of(&self, connection: usize, direction: Direction) -> Vec<u8> {
        let mut bytes = Vec::new();
        for step in self
            .steps
            .iter()
            .filter(|step| step.connection == connection)
        {
            match &step.what {
                What::Frame(sender, recorded) if *sender == direction => {
                    bytes.extend_from_slice(&recorded.bytes)
                }
                What::Cut(sender, cut) if *sender == direction => bytes.extend_from_slice(cut),
                _ => {}
            }
        }
        bytes
    }

    /// The number of connections in the recording.
    pub(crate) fn connections(&self) -> usize {
        self.steps
            .iter()
            .map(|step| step.connection + 1)
            .max()
            .unwrap_or(0)
    }
}

/// The names of all files in the folder, sorted.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the transcripts are part of the tests")
        .filter_map(|entry| {
            let path = entry.expect("a readable folder").path();
            (path.extension()? == "json").then(|| path.file_stem()?.to_str().map(str::to_owned))?
        })
        .collect();
    names.sort();
    names
}

/// The digest of `bytes` in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("transcripts")
}

fn step(file: &str, json: &Value) -> Step {
    let connection = json.get("conn").map_or(0, |_| number(json, "conn"));
    let what = match json
        .get("event")
        .map(|event| event.as_str().expect("an event is a name"))
    {
        Some("client_connected") => What::Connected,
        Some("client_closed") => What::ClientClosed {
            first: json["first"] == true,
        },
        Some("server_closed") => What::ServerClosed {
            first: json["first"] == true,
            reset: json["how"] == "rst",
        },
        Some("recording_cut_here" | "server_refused") => What::Remark,
        Some(other) => panic!("{file}: unknown event {other}"),
        None => bytes_step(file, json),
    };
    Step { connection, what }
}

fn bytes_step(file: &str, json: &Value) -> What {
    let direction = direction(json);
    let bytes = bytes(file, json);
    if json.get("partial").is_some() {
        if json.get("sha256").is_some() {
            assert_eq!(
                sha256(&bytes),
                text_of(json, "sha256"),
                "{file}: the generated bytes are the recorded ones"
            );
        }
        return What::Cut(direction, bytes.into());
    }
    let (frame, len) =
        RawFrame::decode(&bytes).unwrap_or_else(|| panic!("{file}: a step holds a complete frame"));
    assert_eq!(
        len,
        bytes.len(),
        "{file}: a step holds one frame and nothing else"
    );
    let digests = json.get("sha256").map(|_| {
        let body = json
            .get("body_sha256")
            .map(|_| text_of(json, "body_sha256").to_owned());
        (text_of(json, "sha256").to_owned(), body)
    });
    What::Frame(
        direction,
        Arc::new(Recorded {
            bytes,
            frame,
            digests,
        }),
    )
}

/// The bytes of a step, generated where the recording describes them.
fn bytes(file: &str, json: &Value) -> Vec<u8> {
    if json.get("hex").is_some() {
        return generate::hex(text_of(json, "hex"));
    }
    let mut bytes = if json.get("path_gen").is_some() {
        let mut bytes = vec![u8::try_from(number(json, "status")).expect("a status is one byte")];
        bytes.extend(generate::path(text_of(json, "path_gen")));
        bytes.extend(generate::hex(text_of(json, "tail_hex")));
        bytes
    } else {
        generate::hex(text_of(json, "head_hex"))
    };
    match json.get("body_gen").map(|_| text_of(json, "body_gen")) {
        Some("text") => bytes.extend_from_slice(text_of(json, "body_text").as_bytes()),
        Some("in tail_hex") | None => {}
        // bad_c2s_path_without_nul: status 1, and then one letter to the end.
        Some("see description") => {
            bytes.resize(number(json, "len"), *bytes.last().expect("a head"))
        }
        Some(description) => bytes.extend(generate::body(description)),
    }
    assert_eq!(
        bytes.len(),
        number(json, "len"),
        "{file}: the generated bytes have the recorded length"
    );
    bytes
}

fn listed(json: &Value) -> Listed {
    Listed {
        step: number(json, "step"),
        connection: number(json, "conn"),
        direction: direction(json),
        status: u8::try_from(number(json, "status")).expect("a status is one byte"),
        path: text_of(json, "path").to_owned(),
        channel: u32::try_from(number(json, "channel")).expect("a channel is four bytes"),
        len: number(json, "len"),
        body: json.get("body").map(|_| text_of(json, "body").to_owned()),
    }
}

fn direction(json: &Value) -> Direction {
    match text_of(json, "dir") {
        "c2s" => Direction::ClientToServer,
        "s2c" => Direction::ServerToClient,
        other => panic!("unknown direction {other}"),
    }
}

fn list<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json[key]
        .as_array()
        .unwrap_or_else(|| panic!("{key} is a list"))
}

fn text_of<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is a text"))
}

fn number(json: &Value, key: &str) -> usize {
    let number = json[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is a number"));
    usize::try_from(number).expect("recorded numbers are small")
}
