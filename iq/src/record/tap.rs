//! The calls in the bytes of a connection, in both directions. Pure, except for the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use iip_core::__wire::{ControlMessage, StreamMark, begins_stream};
use iip_core::Limits;
use iip_core::decoder::Decoder;
use iip_core::frame::{ChannelId, FRAME_OVERHEAD, Frame, FrameStatus, Side};
use iip_core::path::label_and_query;
use iip_rpc::compression::CompressionId;
use serde::Deserialize;

use super::Recorder;
use super::channel::{Call, Channel, Exchange, Incoming, Stream, Waiting};
use super::filter::Payload;
use super::message::{self, Collected};
use super::queue::Draft;
use crate::capture::{Body, Closed, Message, Moment, Opened, Part, Record, Request};

/// The number of requests of a connection that may wait for replies.
const MAX_WAITING: usize = 64 * 1024;

/// The bytes of a connection that do not count.
const FREE_BYTES: usize = 64 * 1024;

/// The bytes that all connections may hold for messages that are not complete.
const MAX_HELD_BYTES: usize = 128 * 1024 * 1024;

/// The bytes that count for a request that waits.
const WAITING_BYTES: usize = 512;

/// Follows a connection.
pub(super) struct Tap {
    recorder: Arc<Recorder>,
    connection: u64,
    /// The bytes that the client sends, and those that the server sends.
    decoders: [Decoder; 2],
    /// The bytes in the decoders.
    undecoded: [usize; 2],
    channels: HashMap<ChannelId, Channel>,
    waiting: usize,
    /// The bytes of messages that are not complete.
    arriving: usize,
    /// The channel whose requests get no replies.
    one_way: Option<ChannelId>,
    /// The client has announced streams.
    streams: bool,
    /// The server has the build whose description is recorded.
    is_described: bool,
    /// What was counted for this connection.
    held: usize,
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Call,
    OneWay,
    Stream,
}

/// What is read of a hello.
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
    /// The connection cannot be followed any further, for this reason.
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
                // Nothing after it counts.
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

    /// The connection has ended, or cannot be followed any further.
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

    /// Counts the memory of this connection.
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

    // ---- the client

    fn requested(&mut self, frame: Frame) -> Result<(), String> {
        let Frame {
            status,
            path,
            channel: id,
            body,
        } = frame;
        let mut channel = self.taken(id).unwrap_or_default();
        if status.begins() != channel.incoming.is_none() {
            return Err("a request begins within another, or goes on before it begins".to_owned());
        }
        if status.begins() {
            self.begin(id, &mut channel, &path, status, &body)?;
        }
        self.go_on(&mut channel, body, status.ends())?;
        self.put(id, channel);
        Ok(())
    }

    /// Removes a channel, which is put back once a frame of it was handled.
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

    /// A request begins.
    fn begin(
        &mut self,
        id: ChannelId,
        channel: &mut Channel,
        path: &[u8],
        status: FrameStatus,
        body: &Bytes,
    ) -> Result<(), String> {
        let label = label_and_query(path).label;
        let payloads = self.recorder.filter.payloads();
        let exchange = match &*label {
            b"/sys/hello" => Exchange::Hello(Collected::new(false)),
            b"/sys/control" => Exchange::Control,
            other if other.starts_with(b"/sys/") => Exchange::Other,
            _ => {
                let shared = &self.recorder.queue.shared;
                let path = self.recorder.filter.path(path).into();
                let call = Call::new(shared.next_call(), shared.now(), path);
                let is_stream = status == FrameStatus::RequestFirst;
                if self.one_way == Some(id) {
                    channel.incoming = Some(Incoming::OneWay(call, Collected::new(payloads)));
                    return Ok(());
                }
                match is_stream && self.streams && begins_stream(body) {
                    true => Exchange::Stream(Box::new(Stream::new(call))),
                    false => Exchange::Call(call, Some(Collected::new(payloads))),
                }
            }
        };
        channel.incoming = Some(match self.one_way == Some(id) {
            true => Incoming::Replied,
            false => Incoming::Last,
        });
        if self.one_way != Some(id) {
            self.waiting += 1;
            if self.waiting > MAX_WAITING {
                return Err(format!("more than {MAX_WAITING} requests wait for replies"));
            }
            channel.waiting.push_back(Waiting::new(exchange));
        }
        Ok(())
    }

    /// A frame of the request that is arriving.
    fn go_on(&mut self, channel: &mut Channel, body: Bytes, ends: bool) -> Result<(), String> {
        match channel.incoming.take() {
            Some(Incoming::OneWay(mut call, mut request)) => {
                request.add(body);
                match ends {
                    true => self.request(&mut call, request, Kind::OneWay),
                    false => channel.incoming = Some(Incoming::OneWay(call, request)),
                }
                return Ok(());
            }
            Some(Incoming::Last) => channel.incoming = (!ends).then_some(Incoming::Last),
            replied => {
                channel.incoming = replied.filter(|_| !ends);
                return Ok(());
            }
        }
        let Some(last) = channel.waiting.back_mut() else {
            return Ok(());
        };
        match &mut last.exchange {
            Exchange::Hello(hello) => {
                hello.add(body);
                if ends {
                    let hello = hello_of(std::mem::take(hello));
                    self.streams = hello.stream_window.as_u64().is_some_and(|bytes| bytes > 0);
                }
            }
            Exchange::Control => self.control(body),
            Exchange::Other => {}
            Exchange::Call(call, request) => {
                if let Some(collected) = request {
                    collected.add(body);
                }
                if let Some(collected) = request.take_if(|_| ends) {
                    self.request(call, collected, Kind::Call);
                }
            }
            Exchange::Stream(stream) => self.stream_of_client(stream, body)?,
        }
        Ok(())
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

    /// Leaves out payloads that are not recorded, or that the description may not fit.
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

    fn control(&mut self, mut body: Bytes) {
        while let Some(message) = ControlMessage::next(&mut body) {
            match message {
                ControlMessage::OneWay(id) => self.one_way = Some(id),
                ControlMessage::Cancel(id) => {
                    let waiting = self
                        .channels
                        .get(&id)
                        .and_then(|channel| channel.waiting.front());
                    if let Some(call) = waiting.and_then(Waiting::call) {
                        self.cancelled(call);
                    }
                }
                ControlMessage::GoingAway => {}
            }
        }
    }

    fn cancelled(&self, call: &Call) {
        if call.is_known {
            let (call, at) = (call.id, self.now());
            self.push(Record::Cancelled(Moment { call, at }), None);
        }
    }

    /// A frame of a stream of the client.
    fn stream_of_client(&self, stream: &mut Stream, mut body: Bytes) -> Result<(), String> {
        let mark = StreamMark::take(&mut body).ok_or("a frame of a stream has no mark")?;
        match mark {
            StreamMark::Data | StreamMark::Last => {
                stream.requests.feed(body);
                while let Some((compression, message)) = popped(&mut stream.requests)? {
                    self.message_of_client(stream, compression, message);
                }
                if mark == StreamMark::Last && stream.call.is_known {
                    let (call, at) = (stream.call.id, self.now());
                    let pushed = self.push(Record::StreamEnd(Moment { call, at }), None);
                    stream.call.is_incomplete |= !pushed;
                }
            }
            StreamMark::Cancel => self.cancelled(&stream.call),
            StreamMark::Reply | StreamMark::Other => {}
        }
        Ok(())
    }

    fn message_of_client(&self, stream: &mut Stream, compression: CompressionId, message: Bytes) {
        if stream.begun {
            self.message(&mut stream.call, true, compression, message);
            return;
        }
        stream.begun = true;
        let mut collected = Collected::new(true);
        collected.add(message);
        self.request(&mut stream.call, collected, Kind::Stream);
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

    // ---- the server

    fn replied(&mut self, frame: Frame) -> Result<(), String> {
        let Frame {
            status,
            channel: id,
            mut body,
            ..
        } = frame;
        let surplus = || "a reply has no request".to_owned();
        let mut channel = self.taken(id).ok_or_else(surplus)?;
        let waiting = channel.waiting.front_mut().ok_or_else(surplus)?;
        if let Exchange::Stream(stream) = &mut waiting.exchange
            && waiting.reply.is_none()
        {
            match StreamMark::take(&mut body) {
                None | Some(StreamMark::Reply) => {}
                Some(mark) => {
                    if mark == StreamMark::Data {
                        self.stream_of_server(stream, body)?;
                    }
                    if status.ends() {
                        return Err("a stream ends without a reply".to_owned());
                    }
                    self.put(id, channel);
                    return Ok(());
                }
            }
        }
        let payloads = self.recorder.filter.payloads();
        let reply = waiting
            .reply
            .get_or_insert_with(|| Collected::new(payloads));
        // The control stream and others of the protocol say nothing about calls.
        if !matches!(waiting.exchange, Exchange::Control | Exchange::Other) {
            reply.add(body);
        }
        if status.ends() {
            if let Some(waiting) = channel.waiting.pop_front() {
                self.waiting -= 1;
                self.end(waiting);
            }
            if channel.waiting.is_empty() && matches!(channel.incoming, Some(Incoming::Last)) {
                channel.incoming = Some(Incoming::Replied);
            }
        }
        self.put(id, channel);
        Ok(())
    }

    /// A frame of a stream of the server.
    fn stream_of_server(&self, stream: &mut Stream, body: Bytes) -> Result<(), String> {
        stream.replies.feed(body);
        while let Some((compression, message)) = popped(&mut stream.replies)? {
            // The first accepts the call.
            if std::mem::replace(&mut stream.accepted, true) {
                self.message(&mut stream.call, false, compression, message);
            }
        }
        Ok(())
    }

    /// A reply is complete.
    fn end(&mut self, waiting: Waiting) {
        let reply = waiting.reply.unwrap_or_default();
        let (call, accepted) = match waiting.exchange {
            Exchange::Hello(_) => {
                let hello = hello_of(reply);
                let known = &self.recorder.build;
                let other = known.as_ref().is_some_and(|known| *known != hello.rpc.fp);
                self.is_described = !other || hello.rpc.fp.is_empty();
                if !self.is_described {
                    self.recorder.note_other_build();
                }
                return;
            }
            Exchange::Control | Exchange::Other => return,
            // The server has not waited for the rest of the request.
            Exchange::Call(mut call, Some(request)) => {
                self.request(&mut call, request, Kind::Call);
                (call, false)
            }
            Exchange::Call(call, None) => (call, false),
            Exchange::Stream(stream) => (stream.call, stream.accepted),
        };
        if !call.is_known {
            return;
        }
        let (at, filter) = (self.now(), &self.recorder.filter);
        let (mut reply, payload) = message::reply(call.id, at, reply, call.form, accepted, filter);
        reply.incomplete = call.is_incomplete;
        let payload = self.checked(&call.path, payload);
        self.push(Record::Reply(reply), Some((call.path, payload)));
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

fn popped(
    records: &mut iip_rpc::__wire::Records,
) -> Result<Option<(CompressionId, Bytes)>, String> {
    records
        .pop()
        .map_err(|_| "a message of a stream has more than 16 MiB".to_owned())
}

#[cfg(test)]
mod tests;
