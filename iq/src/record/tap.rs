//! Extraction of calls from the bytes of a connection, in both directions. Pure, except for the
//! clock.

mod replies;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use iip_core::Limits;
use iip_core::decoder::Decoder;
use iip_core::frame::{ChannelId, FRAME_OVERHEAD, FrameStatus, Side};
use iip_rpc::__wire::Records;
use iip_rpc::compression::CompressionId;
use serde::Deserialize;

use super::Recorder;
use super::channel::{Call, Channel};
use super::filter::Payload;
use super::message::{self, Collected};
use super::queue::Draft;
use crate::capture::{Body, Closed, Message, Opened, Part, Record, Request};

/// Maximum number of requests of a connection that wait for replies.
const MAX_WAITING: usize = 64 * 1024;

/// The bytes of a connection that do not count towards [`MAX_HELD_BYTES`].
const FREE_BYTES: usize = 64 * 1024;

/// Maximum number of bytes that all connections together hold for incomplete messages.
const MAX_HELD_BYTES: usize = 128 * 1024 * 1024;

/// The bytes that a waiting request counts for.
const WAITING_BYTES: usize = 512;

/// A tap that extracts the calls of a connection.
pub(super) struct Tap {
    recorder: Arc<Recorder>,
    connection: u64,
    /// The decoders of the bytes of the client, and of those of the server.
    decoders: [Decoder; 2],
    /// Number of bytes in the decoders.
    undecoded: [usize; 2],
    channels: HashMap<ChannelId, Channel>,
    waiting: usize,
    /// Number of bytes of incomplete messages.
    arriving: usize,
    /// The channel whose requests get no replies.
    one_way: Option<ChannelId>,
    /// Set if the client has announced streams.
    streams: bool,
    /// Set unless the server has another build than the one whose description is recorded.
    is_described: bool,
    /// Number of bytes that are counted for this connection in
    /// [`Shared::held`](super::queue::Shared::held).
    held: usize,
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Call,
    OneWay,
    Stream,
}

/// The fields of a hello that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hello {
    stream_window: serde_json::Value,
    rpc: Announced,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Announced {
    fp: String,
}

impl Tap {
    pub(super) fn new(recorder: Arc<Recorder>, peer: Option<String>) -> Self {
        let limits = Limits::default();
        let shared = &recorder.queue.shared;
        let (connection, at) = (shared.next_connection(), shared.now());
        let tap = Self {
            connection,
            decoders: [
                Decoder::new(Side::Server, &limits),
                Decoder::new(Side::Client, &limits),
            ],
            undecoded: [0; 2],
            channels: HashMap::new(),
            waiting: 0,
            arriving: 0,
            one_way: None,
            streams: false,
            is_described: true,
            held: 0,
            recorder,
        };
        tap.push(
            Record::Opened(Opened {
                connection,
                at,
                peer,
            }),
            None,
        );
        tap
    }

    /// Takes bytes that `from` has sent.
    ///
    /// # Errors
    ///
    /// The reason why the connection cannot be decoded any further.
    pub(super) fn take(&mut self, from: Side, bytes: &[u8]) -> Result<(), String> {
        let side = usize::from(from == Side::Server);
        self.decoders[side].feed(bytes);
        self.undecoded[side] += bytes.len();
        loop {
            let frame = self.decoders[side].next_frame();
            let Some(frame) = frame.map_err(|error| error.to_string())? else {
                break;
            };
            if frame.status == FrameStatus::Close {
                // Bytes after it are ignored.
                self.undecoded[side] = 0;
                break;
            }
            let size = FRAME_OVERHEAD + frame.path.len() + frame.body.len();
            self.undecoded[side] = self.undecoded[side].saturating_sub(size);
            match from {
                Side::Client => self.requested(frame)?,
                Side::Server => self.replied(frame)?,
            }
        }
        self.count()
    }

    /// Records that the connection has ended, or cannot be decoded any further.
    pub(super) fn close(&self, unreadable: Option<String>) {
        let (connection, at) = (self.connection, self.recorder.queue.shared.now());
        self.push(
            Record::Closed(Closed {
                connection,
                at,
                unreadable,
            }),
            None,
        );
    }

    /// Counts the memory of this connection. Fails if all connections together hold too much.
    fn count(&mut self) -> Result<(), String> {
        let [requests, replies] = self.undecoded;
        let now = requests + replies + self.arriving + self.waiting * WAITING_BYTES;
        let now = now.saturating_sub(FREE_BYTES);
        let held = &self.recorder.queue.shared.held;
        let before = std::mem::replace(&mut self.held, now);
        let all = held.fetch_add(now, Ordering::Relaxed) + now;
        held.fetch_sub(before, Ordering::Relaxed);
        match now > 0 && all - before > MAX_HELD_BYTES {
            true => Err(format!(
                "all connections hold more than {MAX_HELD_BYTES} bytes"
            )),
            false => Ok(()),
        }
    }

    /// Queues a record. Returns `false` if it was dropped.
    fn push(&self, record: Record, payload: Option<(Arc<str>, Payload)>) -> bool {
        self.recorder.queue.push(Draft { record, payload })
    }

    fn now(&self) -> u64 {
        self.recorder.queue.shared.now()
    }

    /// Removes a channel. [`put`](Self::put) puts it back after its frame was handled.
    fn taken(&mut self, id: ChannelId) -> Option<Channel> {
        let channel = self.channels.remove(&id)?;
        self.arriving = self.arriving.saturating_sub(channel.held());
        Some(channel)
    }

    fn put(&mut self, id: ChannelId, channel: Channel) {
        self.arriving += channel.held();
        if !channel.is_idle() {
            self.channels.insert(id, channel);
        }
    }

    /// Removes payloads that are not recorded, or may not match the description.
    fn checked(&self, path: &str, mut payload: Payload) -> Payload {
        if !self.recorder.filter.payloads() {
            payload.bytes = Bytes::new();
        }
        if !self.is_described && self.recorder.services.at(path).is_some() {
            payload.left_out.get_or_insert(
                "the server has another build than the one whose description is recorded",
            );
        }
        payload
    }

    /// Queues the request of a call.
    fn request(&self, call: &mut Call, message: Collected, kind: Kind) {
        let mut request = Request {
            call: call.id,
            connection: self.connection,
            at: call.at,
            path: (*call.path).to_owned(),
            one_way: kind == Kind::OneWay,
            stream: kind == Kind::Stream,
            ..Request::default()
        };
        let described = self.recorder.services.at(&call.path);
        let filter = &self.recorder.filter;
        let (form, payload) = message::request(&mut request, message, described, filter);
        call.form = form;
        let payload = self.checked(&call.path, payload);
        call.is_known = self.push(Record::Request(request), Some((call.path.clone(), payload)));
    }

    /// Queues a message of a stream.
    fn message(&self, call: &mut Call, of_client: bool, compression: CompressionId, bytes: Bytes) {
        if !call.is_known {
            return;
        }
        let message = Message {
            call: call.id,
            at: self.now(),
            of_client,
            body: Body::default(),
        };
        let payload = Payload {
            size: bytes.len(),
            bytes,
            codec: call.form.codec,
            compression,
            part: Some(if of_client {
                Part::Request
            } else {
                Part::Message
            }),
            left_out: None,
        };
        let payload = self.checked(&call.path, payload);
        let pushed = self.push(Record::Message(message), Some((call.path.clone(), payload)));
        call.is_incomplete |= !pushed;
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let held = &self.recorder.queue.shared.held;
        held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

fn hello_of(message: Collected) -> Hello {
    serde_json::from_slice(&message.bytes()).unwrap_or_default()
}

fn popped(records: &mut Records) -> Result<Option<(CompressionId, Bytes)>, String> {
    records
        .pop()
        .map_err(|_| "a message of a stream has more than 16 MiB".to_owned())
}
