//! The recorded traffic of the Go reference, replayed against this implementation.
//!
//! Every file of `tests/transcripts` is decoded and encoded again, its client's side is played
//! against our server, and its server's side is played by a scripted server against our client.
//! [`table`] says for each file how this is done and, where the reference is wrong, what is correct
//! and why.

mod client;
mod go_server;
mod server;
mod table;

use std::future::Future;
use std::sync::Arc;

use bytes::BytesMut;
use iip_core::decoder::Decoder;
use iip_core::frame::{Frame, FrameStatus, Side};
use iip_core::{Limits, ProtocolError};

use crate::common::frame::RawFrame;
use crate::common::transcript::{Direction, Transcript, What, names, sha256};
use crate::common::{Random, spawn, within};

#[test]
fn every_file_of_the_folder_is_in_the_table_once() {
    let mut listed: Vec<&str> = table::files().iter().map(|file| file.name).collect();
    listed.sort_unstable();
    assert_eq!(listed, names(), "left: the table, right: the folder");
}

#[test]
fn every_difference_from_the_recording_has_a_written_reason() {
    for file in table::files() {
        for reason in [file.server.reason(), file.client.reason()]
            .into_iter()
            .flatten()
        {
            assert!(
                reason.len() > 20,
                "{}: {reason:?} does not say why",
                file.name
            );
        }
    }
}

#[test]
fn generated_bytes_are_the_recorded_ones() {
    let mut checked = std::collections::HashSet::new();
    for name in names() {
        for step in Transcript::load(&name).steps {
            let What::Frame(_, recorded) = step.what else {
                continue;
            };
            let Some((frame, body)) = &recorded.digests else {
                continue;
            };
            // The digest of the whole frame covers its body; bodies that are equal in several
            // frames are checked once.
            if checked.insert(body.clone().unwrap_or_else(|| frame.clone())) {
                assert_eq!(&sha256(&recorded.bytes), frame, "{name}: {recorded:?}");
            }
        }
    }
    assert!(
        checked.len() > 10,
        "the large bodies are described, not held"
    );
}

#[test]
fn the_recordings_own_decoding_agrees_with_the_independent_one() {
    for name in names() {
        let transcript = Transcript::load(&name);
        for listed in &transcript.frames {
            let step = &transcript.steps[listed.step];
            let What::Frame(direction, recorded) = &step.what else {
                panic!("{name}: step {} is listed as a frame", listed.step)
            };
            let frame = &recorded.frame;
            assert_eq!(
                (step.connection, *direction),
                (listed.connection, listed.direction),
                "{name}: {frame:?}"
            );
            assert_eq!(
                (frame.status, frame.channel),
                (listed.status, listed.channel),
                "{name}: {frame:?}"
            );
            assert_eq!(frame.body.len(), listed.len, "{name}: {frame:?}");
            assert!(
                path_is_shown_as(&frame.path, &listed.path),
                "{name}: {frame:?} is not {:?}",
                listed.path
            );
            if let Some(body) = &listed.body {
                assert_eq!(&frame.body_text(), body, "{name}");
            }
        }
        let complete = transcript
            .steps
            .iter()
            .filter(|step| matches!(step.what, What::Frame(..)))
            .count();
        assert_eq!(
            complete,
            transcript.frames.len(),
            "{name}: every complete frame is listed"
        );
    }
}

/// The recordings cut long paths in the middle and escape bytes that are not text.
fn path_is_shown_as(path: &[u8], shown: &str) -> bool {
    match shown.split_once("...(") {
        Some((start, len)) => {
            path.starts_with(start.as_bytes()) && len == format!("{} bytes)", path.len())
        }
        None => match std::str::from_utf8(path) {
            Ok(text) => text == shown,
            Err(_) => path.escape_ascii().to_string() == shown,
        },
    }
}

/// The expected result of decoding one direction's bytes: these frames, and then this error, if
/// any.
struct Expected {
    frames: Vec<Frame>,
    error: Option<ProtocolError>,
}

/// Judges recorded bytes by the text of the protocol alone: sections 1 and 2, and the limits of
/// DESIGN 7.
fn expected(transcript: &Transcript, connection: usize, direction: Direction) -> Expected {
    let mut frames = Vec::new();
    let error = transcript
        .steps
        .iter()
        .filter(|step| step.connection == connection)
        .find_map(|step| match &step.what {
            What::Frame(sender, recorded) if *sender == direction => {
                match judged(&recorded.frame, direction) {
                    Ok(frame) => {
                        let ends = frame.status == FrameStatus::Close;
                        frames.push(frame);
                        // After status 8 nothing is read any more.
                        ends.then_some(None)
                    }
                    Err(error) => Some(Some(error)),
                }
            }
            What::Cut(sender, bytes) if *sender == direction => judged_cut(bytes, &mut frames),
            _ => None,
        })
        .flatten();
    Expected { frames, error }
}

fn judged(raw: &RawFrame, direction: Direction) -> Result<Frame, ProtocolError> {
    let status =
        FrameStatus::from_byte(raw.status).ok_or(ProtocolError::UnknownStatus(raw.status))?;
    if status == FrameStatus::Close {
        // Honoured as soon as the byte is read: path, channel and body do not matter.
        return Ok(close_frame());
    }
    let sent_by_client = raw.status < 4;
    if sent_by_client != (direction == Direction::ClientToServer) {
        return Err(ProtocolError::WrongDirection(status));
    }
    if raw.path.len() > 2048 {
        return Err(ProtocolError::PathTooLong { limit: 2048 });
    }
    if raw.body.is_empty() {
        return Err(ProtocolError::EmptyBody);
    }
    Ok(Frame {
        status,
        path: raw.path.clone().into(),
        channel: iip_core::frame::ChannelId(raw.channel),
        body: raw.body.clone().into(),
    })
}

/// The files that end in the middle of a frame, by the part of it that must already be rejected.
fn judged_cut(bytes: &[u8], frames: &mut Vec<Frame>) -> Option<Option<ProtocolError>> {
    let (&status, rest) = bytes.split_first()?;
    if status == 8 {
        frames.push(close_frame());
        return Some(None);
    }
    if status > 8 {
        return Some(Some(ProtocolError::UnknownStatus(status)));
    }
    let Some(nul) = rest.iter().position(|&byte| byte == 0) else {
        return (rest.len() > 2048).then_some(Some(ProtocolError::PathTooLong { limit: 2048 }));
    };
    let len = rest.get(nul + 5..nul + 9)?;
    let size = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
    match size {
        0 => Some(Some(ProtocolError::EmptyBody)),
        1..=0x100_0000 => None,
        _ => Some(Some(ProtocolError::FrameTooLarge {
            size,
            limit: 0x100_0000,
        })),
    }
}

fn close_frame() -> Frame {
    Frame {
        status: FrameStatus::Close,
        path: bytes::Bytes::new(),
        channel: iip_core::frame::ChannelId(0),
        body: bytes::Bytes::new(),
    }
}

/// Feeds `pieces` one after the other and compares every frame, and the error, with the expected
/// ones.
fn decodes_to<'a>(
    name: &str,
    direction: Direction,
    pieces: impl Iterator<Item = &'a [u8]>,
    expected: &Expected,
) -> Result<(), String> {
    let side = match direction {
        Direction::ClientToServer => Side::Server,
        Direction::ServerToClient => Side::Client,
    };
    let mut decoder = Decoder::new(side, &Limits::default());
    let mut frames = expected.frames.iter();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let closes = frame.status == FrameStatus::Close;
                    match frames.next() {
                        Some(expected) if *expected == frame => {}
                        other => {
                            return Err(format!(
                                "{name} {direction:?}: got {frame:?}, expected {other:?}"
                            ));
                        }
                    }
                    if closes {
                        if let Ok(Some(again)) = decoder.next_frame() {
                            return Err(format!(
                                "{name} {direction:?}: after status 8 came {again:?}"
                            ));
                        }
                        return end(name, direction, frames.next(), None, expected);
                    }
                }
                Err(error) => return end(name, direction, frames.next(), Some(error), expected),
            }
        }
    }
    end(name, direction, frames.next(), None, expected)
}

fn end(
    name: &str,
    direction: Direction,
    missing: Option<&Frame>,
    error: Option<ProtocolError>,
    expected: &Expected,
) -> Result<(), String> {
    if let Some(missing) = missing {
        return Err(format!(
            "{name} {direction:?}: {missing:?} did not come out"
        ));
    }
    if error != expected.error {
        return Err(format!(
            "{name} {direction:?}: ended with {error:?}, expected {:?}",
            expected.error
        ));
    }
    Ok(())
}

/// Every direction of every connection of every file.
fn each_direction(
    mut check: impl FnMut(&Transcript, &[u8], Direction, &Expected) -> Result<(), String>,
) {
    let mut failures = Vec::new();
    for name in names() {
        let transcript = Transcript::load(&name);
        for connection in 0..transcript.connections() {
            for direction in [Direction::ClientToServer, Direction::ServerToClient] {
                let bytes = transcript.bytes_of(connection, direction);
                let expected = expected(&transcript, connection, direction);
                failures.extend(check(&transcript, &bytes, direction, &expected).err());
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_recorded_frame_is_decoded_and_encoded_to_the_same_bytes() {
    let mut seen = 0;
    for name in names() {
        for step in Transcript::load(&name).steps {
            let What::Frame(direction, recorded) = &step.what else {
                continue;
            };
            let Ok(expected) = judged(&recorded.frame, *direction) else {
                continue;
            };
            if expected.status == FrameStatus::Close {
                continue;
            }
            let side = match direction {
                Direction::ClientToServer => Side::Server,
                Direction::ServerToClient => Side::Client,
            };
            let mut decoder = Decoder::new(side, &Limits::default());
            decoder.feed(&recorded.bytes);
            let frame = decoder
                .next_frame()
                .expect("a legal frame")
                .expect("a complete frame");
            assert_eq!(frame, expected, "{name}");
            assert_eq!(
                decoder.next_frame(),
                Ok(None),
                "{name}: nothing is left over"
            );
            let mut encoded = BytesMut::new();
            frame.encode(&mut encoded);
            assert!(
                encoded[..] == recorded.bytes[..],
                "{name}: {recorded:?} is encoded differently"
            );
            seen += 1;
        }
    }
    assert!(seen > 1000, "only {seen} frames were looked at");
}

#[test]
fn a_direction_fed_as_a_whole_gives_its_frames() {
    each_direction(|transcript, bytes, direction, expected| {
        decodes_to(
            &transcript.name,
            direction,
            std::iter::once(bytes),
            expected,
        )
    });
}

#[test]
fn a_direction_cut_into_single_bytes_gives_the_same_frames() {
    each_direction(|transcript, bytes, direction, expected| {
        // In a body of megabytes, a decoder treats all bytes between the first and the last
        // thousand alike.
        let cuts = single_byte_cuts(&transcript.name, bytes);
        decodes_to(&transcript.name, direction, pieces(bytes, cuts), expected)
    });
}

/// The positions at which to cut: everywhere, except deep inside large bodies and paths, where
/// pieces are 64 KiB.
fn single_byte_cuts(name: &str, bytes: &[u8]) -> Vec<usize> {
    const EDGE: usize = 1000;
    let mut cuts = Vec::new();
    let (frames, _) = RawFrame::decode_all(bytes);
    let mut start = 0;
    for frame in frames {
        let end = start + frame.path.len() + frame.body.len() + 10;
        let head_end = (start + frame.path.len() + 10 + EDGE).min(end);
        cuts.extend(start + 1..head_end);
        cuts.extend((head_end..end.saturating_sub(EDGE)).step_by(64 * 1024));
        cuts.extend(end.saturating_sub(EDGE).max(head_end)..=end);
        start = end;
    }
    cuts.extend(start + 1..bytes.len());
    cuts.dedup();
    assert!(cuts.is_sorted(), "{name}: cuts are in order");
    cuts
}

#[test]
fn a_direction_cut_at_random_points_gives_the_same_frames() {
    // The recordings are read once for all seeds.
    let mut seeds: Vec<(u64, Random)> = (1..=8).map(|seed| (seed, Random::new(seed))).collect();
    each_direction(|transcript, bytes, direction, expected| {
        seeds.iter_mut().try_for_each(|(seed, random)| {
            let mut cuts = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                // Mostly a few bytes, sometimes many, and on average enough that megabytes do not
                // take long.
                let longest = [3, 30, 300, 5000][random.below(4)].max(bytes.len() / 500);
                at += 1 + random.below(longest);
                cuts.push(at.min(bytes.len()));
            }
            let name = format!("{} (seed {seed})", transcript.name);
            decodes_to(&name, direction, pieces(bytes, cuts), expected)
        })
    });
}

/// The pieces of `bytes`, cut at `cuts`, which are in order.
fn pieces(bytes: &[u8], cuts: Vec<usize>) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    cuts.into_iter().chain([bytes.len()]).map(move |to| {
        let piece = &bytes[from..to];
        from = to;
        piece
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_server_gives_every_recorded_client_its_replies() {
    each_file(|file| async move {
        let transcript = Arc::new(Transcript::load(file.name));
        server::plays(transcript, file.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_understands_every_recorded_server() {
    each_file(|file| async move {
        let transcript = Arc::new(Transcript::load(file.name));
        client::plays(transcript, file.client).await;
    })
    .await;
}

/// Runs `play` for every file, a few at a time, and names all files that failed.
async fn each_file<F>(play: impl Fn(table::File) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let turn = Arc::new(tokio::sync::Semaphore::new(6));
    let mut running = Vec::new();
    for file in table::files() {
        let name = file.name;
        let playing = play(file);
        let turn = turn.clone();
        let task = spawn(async move {
            let _turn = turn.acquire().await.expect("the semaphore is not closed");
            within(name, playing).await;
        });
        running.push((name, task));
    }
    let mut failures = Vec::new();
    for (name, task) in running {
        if let Err(error) = task.await {
            let panic = error.into_panic();
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            failures.push(format!("{name}: {}", text.unwrap_or_default()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} files failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
