//! Machines without sockets, and a small model to hold them against: for the tests and for the fuzz
//! target `machine`. Pure.

pub(super) mod calls;
pub(super) mod streams;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::iter::Copied;
use std::slice::Iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use self::calls::CallStep;
use self::streams::Step;
use super::stream::DATA;
use super::{ClientEvent, Connection, Mode, ServerEvent, WAITING_COST, is_one_way};
use crate::body::Body;
use crate::decoder::{Decoder, Partial};
use crate::error::{CallErrorKind, ConnectionError};
use crate::frame::{ChannelId, FrameStatus, Side};
use crate::limits::Limits;
use crate::path::check_label;
use crate::proto::slots::CallId;

/// The largest message of the model's runs, far below the default so that many are too large.
const MESSAGE_BYTES: usize = 3000;

/// The smallest chunk there is.
const CHUNK_BYTES: usize = 1024;

/// Message sizes around every bound that is in force.
const SIZES: [usize; 10] = [1, 2, 100, 1024, 1088, 1089, 2000, 3000, 3001, 5000];

/// Raw path, and the label and query that the server must see. The last two are answered by the
/// machine itself.
const PATHS: [(&str, &str, &str); 6] = [
    ("/a", "/a", ""),
    ("/b?x=1", "/b", "x=1"),
    ("/%61c", "/ac", ""),
    ("/a%2541", "/a%41", ""),
    ("/sys/delete_channel", "", ""),
    ("/a%00b", "", ""),
];

/// Maximum number of bytes of incomplete answers in the client.
const CLIENT_BUDGET: usize = MESSAGE_BYTES / 3;

/// Limits that a run of a few dozen operations can reach.
pub(super) fn small_limits() -> Limits {
    Limits::default()
        .max_message_bytes(MESSAGE_BYTES)
        .max_buffered_bytes(16 * MESSAGE_BYTES)
        .max_unsent_bytes(4 * MESSAGE_BYTES)
        .chunk_bytes(CHUNK_BYTES)
        .max_channels(8)
        .max_calls(3)
}

/// One machine with its decoder: what a driver owns, without the socket.
#[derive(Debug)]
pub(super) struct End {
    pub(super) machine: Connection,
    pub(super) decoder: Decoder,
    batch: VecDeque<Bytes>,
}

impl End {
    pub(super) fn new(side: Side, limits: Limits, now: Instant) -> Self {
        Self {
            decoder: Decoder::new(side, &limits),
            machine: Connection::new(side, limits, Value::Null, now),
            batch: VecDeque::new(),
        }
    }

    /// Takes what was read, as the driver does.
    pub(super) fn feed(&mut self, now: Instant, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.decoder.feed(bytes);
        let mut frames = Vec::new();
        let decoded = loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let in_head = self.decoder.partial() == Partial::Head;
        self.machine
            .timers()
            .on_read(now, in_head, !frames.is_empty());
        for frame in frames {
            self.machine.handle_frame(frame.borrowed())?;
        }
        decoded?;
        if let Some(head) = self.decoder.unfinished_head() {
            self.machine.check_head(head)?;
        }
        Ok(())
    }

    /// Answers, as handlers do.
    pub(super) fn reply(&mut self, id: ChannelId, body: impl Into<Body>, ends: bool) -> bool {
        self.machine.reply(id, &mut body.into(), ends)
    }

    /// Sends a request, as callers do.
    pub(super) fn start_call(
        &mut self,
        id: ChannelId,
        path: &[u8],
        body: impl Into<Body>,
        token: usize,
        in_parts: bool,
    ) {
        let mode = if in_parts { Mode::Parts } else { Mode::Whole };
        self.machine
            .start_call(id, path, &mut body.into(), CallId::of(token), mode);
    }

    /// Writes everything that is ready.
    pub(super) fn write(&mut self, now: Instant) -> Vec<u8> {
        self.machine.take_output(&mut self.batch);
        let bytes: Vec<u8> = self.batch.make_contiguous().concat();
        self.batch.clear();
        if !bytes.is_empty() {
            self.machine.on_written(now, bytes.len());
        }
        bytes
    }

    /// Returns the number of channels of a server with a call or a message on them; those at rest
    /// may be known or not.
    pub(super) fn channels_in_use(&self) -> usize {
        (0..=self.machine.server.granted)
            .filter_map(|id| self.machine.channels.get(ChannelId(id)))
            .filter(|channel| !channel.is_at_rest())
            .count()
    }

    /// The counters of the machine against what these channels hold, which are all that have
    /// anything.
    pub(super) fn check_accounting(&self, channels: impl IntoIterator<Item = ChannelId>) {
        let machine = &self.machine;
        let (mut buffered, mut waiting, mut open, mut streamed) = (0, 0, 0, 0);
        for channel in channels
            .into_iter()
            .filter_map(|id| machine.channels.get(id))
        {
            buffered += channel.assembly.as_ref().map_or(0, |a| a.data.len());
            buffered += channel
                .waiting
                .iter()
                // Without a body it marks a request that was too large.
                .filter(|request| !request.body.is_empty())
                .map(|request| request.path.len() + request.body.len())
                .sum::<usize>();
            waiting += channel.waiting.len();
            open += usize::from(channel.open.is_some());
            streamed += usize::from(channel.is_arriving());
        }
        // What waits may count more than its bytes.
        assert!(
            machine.buffered == buffered || (machine.buffered > buffered && waiting > 0),
            "{} bytes are counted as buffered, {buffered} are",
            machine.buffered
        );
        assert_eq!(machine.server.open_calls, open, "open calls");
        assert_eq!(
            machine.server.streamed, streamed,
            "calls whose request arrives"
        );
    }
}

/// A client and a server, and the bytes between them.
#[derive(Debug)]
struct Pair {
    now: Instant,
    client: End,
    server: End,
    to_server: BytesMut,
    to_client: BytesMut,
}

impl Pair {
    fn new(client: Limits, server: Limits) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: End::new(Side::Client, client, now),
            server: End::new(Side::Server, server, now),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        }
    }

    /// A side writes what is ready; `false` if there is nothing.
    fn write(&mut self, side: Side) -> bool {
        let (from, wire) = match side {
            Side::Client => (&mut self.client, &mut self.to_server),
            Side::Server => (&mut self.server, &mut self.to_client),
        };
        let bytes = from.write(self.now);
        wire.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    /// A side, and the bytes that it has not read.
    fn reader(&mut self, side: Side) -> (&mut End, &mut BytesMut) {
        match side {
            Side::Client => (&mut self.client, &mut self.to_client),
            Side::Server => (&mut self.server, &mut self.to_server),
        }
    }

    /// A side reads at most so many bytes; `false` if it reads none.
    fn read(&mut self, side: Side, bytes: usize) -> bool {
        let now = self.now;
        let (to, wire) = self.reader(side);
        if !to.machine.wants_read() || wire.is_empty() || bytes == 0 {
            return false;
        }
        let bytes = wire.split_to(bytes.min(wire.len()));
        to.feed(now, &bytes)
            .expect("the other side keeps to the protocol");
        true
    }

    /// Sees that nothing is left of the calls on these channels.
    fn check_at_rest(&self, channels: &[ChannelId]) {
        let (client, server) = (&self.client.machine, &self.server.machine);
        assert_eq!((client.buffered, server.buffered), (0, 0), "buffered bytes");
        assert_eq!(server.open_calls(), 0, "open calls");
        assert!(client.is_at_rest() && server.is_at_rest() && server.wants_read());
        // Only the control stream stays open.
        let kept = usize::from(client.control.is_some());
        assert_eq!(self.server.channels_in_use(), kept, "channels in use");
        for &id in channels {
            assert!(!client.awaits_reply(id), "channel {id} awaits a reply");
        }
        assert_eq!(client.poll_timeout(Partial::Nothing), None);
    }
}

/// An action of the application or the network on a pair of machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// The client asks for a channel.
    OpenChannel,
    /// The client starts a call; several on one channel are pipelined.
    Call {
        channel: u8,
        path: u8,
        size: u8,
        streamed: bool,
    },
    /// A caller goes.
    Abandon { call: u8 },
    /// The server's handler wants the parts of an unfinished request.
    StreamRequest { channel: u8 },
    /// The server's handler answers, or sends a part of its answer.
    Answer { channel: u8, size: u8, ends: bool },
    /// The client sends a request that is not answered.
    OneWay { path: u8, size: u8 },
    /// A side writes what is ready.
    Write { side: Side },
    /// A side reads at most so many bytes.
    Read { side: Side, bytes: u16 },
}

impl Operation {
    /// Reads an operation from a fuzzer's bytes.
    fn read(data: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let tag = data.next()?;
        let mut byte = || data.next().unwrap_or(0);
        let side = match tag & 0x80 {
            0 => Side::Client,
            _ => Side::Server,
        };
        Some(match tag % 8 {
            0 if side == Side::Server => Self::OneWay {
                path: byte(),
                size: byte(),
            },
            0 => Self::OpenChannel,
            1 | 2 => Self::Call {
                channel: byte(),
                path: byte(),
                size: byte(),
                streamed: side == Side::Server,
            },
            3 => Self::Abandon { call: byte() },
            4 => Self::StreamRequest { channel: byte() },
            5 => Self::Answer {
                channel: byte(),
                size: byte(),
                ends: side == Side::Server,
            },
            6 => Self::Write { side },
            _ => Self::Read {
                side,
                bytes: u16::from_be_bytes([byte(), byte()]),
            },
        })
    }
}

/// The progress of the server with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its handler does not know of it.
    Sent,
    /// `RequestBegun` came; with `true` a handler takes its parts.
    Begun(bool),
    /// It is the handler's turn.
    Shown,
    /// The answer is complete.
    Answered,
}

/// One call in the model.
#[derive(Debug)]
struct ModelCall {
    token: usize,
    path: usize,
    body: Vec<u8>,
    /// The client wants the parts of the answer.
    streamed: bool,
    /// The caller has gone, or was told that the answer is too large: what comes is swallowed.
    swallowed: bool,
    stage: Stage,
    /// The part of a streamed request that the server has received.
    seen: Vec<u8>,
    answer: Vec<u8>,
    /// The answer left as one frame.
    single: bool,
    /// The number of bytes of a streamed answer that the client has received.
    received: usize,
}

impl ModelCall {
    fn has_handler(&self) -> bool {
        matches!(self.stage, Stage::Begun(true) | Stage::Shown)
    }

    /// The answer that the machine gives by itself.
    fn own_answer(&self) -> Option<&'static [u8]> {
        match (PATHS[self.path].0, self.body.len()) {
            ("/sys/delete_channel", ..=MESSAGE_BYTES) => Some(br#"{"code":0}"#),
            // Too large, or without a label that could be sent.
            ("/sys/delete_channel" | "/a%00b", _) => Some(super::control::NO_HANDLER),
            _ => None,
        }
    }
}

/// A client and a server, the bytes between them, and what must come of it: one queue of calls per
/// channel.
#[derive(Debug)]
pub(super) struct Model {
    pair: Pair,
    /// The channels the client may use.
    channels: Vec<ChannelId>,
    /// Channels that were asked for.
    asked_for: usize,
    calls: BTreeMap<ChannelId, VecDeque<ModelCall>>,
    tokens: usize,
    answers: usize,
    /// Requests without answers, by path, that no handler has seen yet.
    one_way: Vec<(usize, Vec<u8>)>,
    /// The channels of the others, whose handlers are running.
    one_way_shown: VecDeque<ChannelId>,
}

impl Model {
    /// `hello`: do the two get to know each other, so that long messages are cut?
    pub(super) fn new(hello: bool) -> Self {
        let mut model = Self {
            pair: Pair::new(
                small_limits().max_buffered_bytes(CLIENT_BUDGET),
                small_limits(),
            ),
            channels: vec![ChannelId::ZERO],
            asked_for: 0,
            calls: BTreeMap::new(),
            tokens: 0,
            answers: 0,
            one_way: Vec::new(),
            one_way_shown: VecDeque::new(),
        };
        if hello {
            model.pair.client.machine.say_hello();
        }
        model
    }

    /// Runs the operations, then lets both sides finish.
    pub(super) fn run(hello: bool, operations: &[Operation]) {
        let mut model = Self::new(hello);
        for &operation in operations {
            model.apply(operation);
            model.check_accounting();
        }
        model.settle();
    }

    fn check_accounting(&self) {
        for end in [&self.pair.client, &self.pair.server] {
            // Grants are few, for there are few channels.
            let channels = (0..=32).map(ChannelId);
            end.check_accounting(channels.chain(end.machine.one_way_channels()));
        }
    }

    fn apply(&mut self, operation: Operation) {
        self.pair.now += Duration::from_millis(1);
        match operation {
            // A client keeps to the limit of its server.
            Operation::OpenChannel if self.asked_for < 6 => {
                self.asked_for += 1;
                self.pair.client.machine.open_channel();
            }
            Operation::OpenChannel => {}
            Operation::Call {
                channel,
                path,
                size,
                streamed,
            } => self.call(channel, path, size, streamed),
            Operation::Abandon { call } => self.abandon(call),
            Operation::StreamRequest { channel } => {
                let begun = |call: &ModelCall| call.stage == Stage::Begun(false);
                if let Some((id, call)) = pick(&mut self.calls, channel, begun) {
                    // Not if too much has been gathered already.
                    if self.pair.server.machine.stream_request(id) {
                        call.stage = Stage::Begun(true);
                    }
                    self.server_events();
                }
            }
            Operation::Answer {
                channel,
                size,
                ends,
            } => {
                if channel % 2 == 0 || !self.end_one_way() {
                    self.answer(channel, size, ends);
                }
            }
            Operation::OneWay { path, size } => self.one_way(path, size),
            Operation::Write { side } => {
                self.pair.write(side);
            }
            Operation::Read { side, bytes } => {
                self.read(side, usize::from(bytes));
            }
        }
    }

    fn call(&mut self, channel: u8, path: u8, size: u8, streamed: bool) {
        let id = self.channels[usize::from(channel) % self.channels.len()];
        let path = usize::from(path) % PATHS.len();
        let size = SIZES[usize::from(size) % SIZES.len()];
        self.tokens += 1;
        let token = self.tokens;
        let body = pattern(token, size);
        self.pair
            .client
            .start_call(id, PATHS[path].0.as_bytes(), body.clone(), token, streamed);
        self.calls.entry(id).or_default().push_back(ModelCall {
            token,
            path,
            body,
            streamed,
            swallowed: false,
            stage: Stage::Sent,
            seen: Vec::new(),
            answer: Vec::new(),
            single: false,
            received: 0,
        });
    }

    fn one_way(&mut self, path: u8, size: u8) {
        let Some(id) = self.pair.client.machine.one_way_channel() else {
            return;
        };
        let path = usize::from(path) % PATHS.len();
        let size = SIZES[usize::from(size) % SIZES.len()];
        self.tokens += 1;
        let body = pattern(self.tokens, size);
        let (raw, label, _) = PATHS[path];
        let mut data = Body::from(body.clone());
        self.pair
            .client
            .machine
            .send_one_way(id, raw.as_bytes(), &mut data, self.pair.now);
        // What the machine answers by itself is answered with nothing.
        if !label.is_empty() {
            self.one_way.push((path, body));
        }
    }

    /// A request without an answer has reached its handler: one of those that were sent.
    fn on_one_way(&mut self, event: &ServerEvent) {
        let (id, label, body) = match event {
            ServerEvent::Request {
                channel,
                path,
                body,
                ..
            } => (*channel, &path.label, Some(body)),
            ServerEvent::RequestTooLarge { channel, path, .. } => (*channel, &path.label, None),
            event => panic!("{event:?} for a request without an answer"),
        };
        let is_it = |(path, sent): &(usize, Vec<u8>)| {
            let fits = sent.len() <= MESSAGE_BYTES;
            PATHS[*path].1 == *label && body.map_or(!fits, |body| fits && body == sent)
        };
        let index = self.one_way.iter().position(is_it);
        self.one_way.remove(index.expect("it was sent"));
        assert!(!self.one_way_shown.contains(&id), "channel {id} twice");
        self.one_way_shown.push_back(id);
    }

    /// The handler of a request without an answer ends. `false` if there is none.
    fn end_one_way(&mut self) -> bool {
        let Some(id) = self.one_way_shown.pop_front() else {
            return false;
        };
        assert!(
            self.pair.server.reply(id, pattern(1, 100), true),
            "it was open"
        );
        self.server_events();
        true
    }

    fn abandon(&mut self, call: u8) {
        let wanted: Vec<(ChannelId, usize)> = self
            .calls
            .iter()
            .flat_map(|(&id, calls)| calls.iter().map(move |call| (id, call)))
            .filter(|(_, call)| !call.swallowed)
            .map(|(id, call)| (id, call.token))
            .collect();
        if wanted.is_empty() {
            return;
        }
        let (id, token) = wanted[usize::from(call) % wanted.len()];
        let withdrawn = self.pair.client.machine.abandon(id, CallId::of(token));
        let calls = self.calls.get_mut(&id).expect("it was found just now");
        if withdrawn {
            // Nothing of it was sent: it was the only call of its channel, and nobody will hear of
            // it.
            assert_eq!(calls.len(), 1, "calls of the channel");
            calls.clear();
            return;
        }
        let call = calls.iter_mut().find(|call| call.token == token);
        call.expect("it was found just now").swallowed = true;
    }

    fn answer(&mut self, channel: u8, size: u8, ends: bool) {
        self.answer_with(channel, size, ends, ModelCall::has_handler);
    }

    fn answer_with(
        &mut self,
        channel: u8,
        size: u8,
        ends: bool,
        wanted: impl Fn(&ModelCall) -> bool,
    ) {
        self.answers += 1;
        let part = pattern(self.answers, SIZES[usize::from(size) % SIZES.len()]);
        let knows_hello = self.pair.server.machine.peer_knows_hello;
        let Some((id, call)) = pick(&mut self.calls, channel, wanted) else {
            return;
        };
        call.single = call.answer.is_empty() && ends && !knows_hello;
        call.answer.extend_from_slice(&part);
        if ends {
            call.stage = Stage::Answered;
        }
        assert!(
            self.pair.server.reply(id, part, ends),
            "channel {id} has no open request"
        );
        self.server_events();
    }

    fn read(&mut self, side: Side, bytes: usize) -> bool {
        if !self.pair.read(side, bytes) {
            return false;
        }
        match side {
            Side::Client => self.client_events(),
            Side::Server => self.server_events(),
        }
        true
    }

    fn server_events(&mut self) {
        while let Some(event) = self.pair.server.machine.poll_server_event() {
            let (id, path) = match &event {
                ServerEvent::Request { channel, path, .. }
                | ServerEvent::RequestBegun { channel, path }
                | ServerEvent::RequestTooLarge { channel, path, .. } => {
                    (*channel, Some(Arc::clone(path)))
                }
                ServerEvent::RequestPart { channel, .. } | ServerEvent::Cancelled { channel } => {
                    (*channel, None)
                }
                ServerEvent::PeerHello(_) => continue,
                event => panic!("{event:?} does not belong to a server"),
            };
            if is_one_way(id) {
                self.on_one_way(&event);
                continue;
            }
            let calls = self.calls.get_mut(&id);
            let call = calls
                .and_then(current)
                .unwrap_or_else(|| panic!("{event:?} without a call"));
            if let Some(path) = path {
                let (raw, label, expected) = PATHS[call.path];
                let label = if label.is_empty() { raw } else { label };
                assert_eq!(path.label, label, "the label of {raw}");
                assert_eq!(path.query, expected, "the query of {raw}");
            }
            match (event, call.stage) {
                (ServerEvent::Request { body, .. }, Stage::Sent | Stage::Begun(false)) => {
                    assert!(body.len() <= MESSAGE_BYTES, "{} bytes", body.len());
                    assert_eq!(body, call.body, "the request's data");
                    call.stage = Stage::Shown;
                }
                (ServerEvent::RequestBegun { .. }, Stage::Sent) => call.stage = Stage::Begun(false),
                (ServerEvent::RequestTooLarge { .. }, Stage::Sent | Stage::Begun(false)) => {
                    assert!(call.body.len() > MESSAGE_BYTES, "it is not too large");
                    call.stage = Stage::Shown;
                }
                (ServerEvent::RequestPart { body, ends, .. }, Stage::Begun(true)) => {
                    call.seen.extend_from_slice(&body);
                    if ends {
                        assert_eq!(call.seen, call.body, "the parts of the request");
                        call.stage = Stage::Shown;
                    } else {
                        assert!(call.body.starts_with(&call.seen), "a part of the request");
                    }
                }
                (ServerEvent::Cancelled { .. }, Stage::Begun(_) | Stage::Shown) => {
                    assert!(call.swallowed, "its caller has not gone");
                }
                (event, stage) => panic!("{event:?} in stage {stage:?}"),
            }
        }
    }

    fn client_events(&mut self) {
        while let Some(event) = self.pair.client.machine.poll_client_event() {
            match event {
                ClientEvent::ChannelOpened(id) => {
                    assert!(!self.channels.contains(&id), "channel {id} twice");
                    self.channels.push(id);
                }
                ClientEvent::ChannelRejected { code, .. } => assert_eq!(code, 106),
                ClientEvent::PeerHello(hello) => assert!(hello.is_some()),
                ClientEvent::ReplyPart { call, body } => {
                    let token = call.slot();
                    let call = front_with(&mut self.calls, token);
                    assert!(call.streamed && !call.swallowed);
                    let end = call.received + body.len();
                    assert_eq!(call.answer.get(call.received..end), Some(&body[..]));
                    call.received = end;
                }
                ClientEvent::Reply { call, result } => {
                    let token = call.slot();
                    let call = front_with(&mut self.calls, token);
                    assert!(!call.swallowed, "nobody waits for it");
                    match result {
                        Ok(body) => {
                            let expected = call.own_answer().unwrap_or_else(|| {
                                assert_eq!(call.stage, Stage::Answered);
                                &call.answer[call.received..]
                            });
                            assert_eq!(body, expected, "the answer's data");
                            pop_front_with(&mut self.calls, token);
                        }
                        Err(CallErrorKind::MessageTooLarge { .. }) => {
                            assert!(call.answer.len() > MESSAGE_BYTES, "it is not too large");
                            if call.single {
                                pop_front_with(&mut self.calls, token);
                            } else {
                                assert!(!call.streamed, "its parts were taken");
                                call.swallowed = true;
                            }
                        }
                        Err(CallErrorKind::BufferFull { limit }) => {
                            assert_eq!(limit, CLIENT_BUDGET);
                            // What has arrived is no larger than a message. What the server has
                            // sent since may be.
                            assert!(!call.single && !call.streamed, "it is not gathered");
                            call.swallowed = true;
                        }
                        Err(error) => panic!("call {token} fails: {error}"),
                    }
                }
                ClientEvent::Swallowed { channel } => {
                    let calls = self.calls.get_mut(&channel).expect("it had a call");
                    let call = calls.pop_front().expect("it had a call");
                    assert!(call.swallowed, "its caller waits");
                    // The server replies by itself to a cancelled call that no handler has.
                    let cancelled = matches!(call.stage, Stage::Sent | Stage::Begun(false))
                        && self.pair.server.machine.control.is_some();
                    let own = call.own_answer().is_some() || cancelled;
                    assert!(own || call.stage == Stage::Answered, "{:?}", call.stage);
                }
                event => panic!("{event:?} does not belong to a client"),
            }
        }
    }

    /// Lets everything go its way until nothing moves, and sees that nothing is left.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Client, Side::Server] {
                moved |= self.pair.write(side);
            }
            for side in [Side::Server, Side::Client] {
                moved |= self.read(side, usize::MAX);
            }
            moved |= self.end_one_way();
            // A handler that was shown no more than the beginning waits for the rest.
            let shown = |call: &ModelCall| call.stage == Stage::Shown;
            if pick(&mut self.calls, 0, shown).is_some() {
                self.answer_with(0, 1, true, shown);
                moved = true;
            }
            if !moved {
                break;
            }
        }
        let left: usize = self.calls.values().map(VecDeque::len).sum();
        assert_eq!(left, 0, "calls never end: {:?}", self.calls);
        assert_eq!(self.one_way, [], "sent and not shown");
        self.check_accounting();
        self.pair.check_at_rest(&self.channels);
    }
}

/// The oldest call of a channel that the server has not answered.
fn current(calls: &mut VecDeque<ModelCall>) -> Option<&mut ModelCall> {
    calls
        .iter_mut()
        .find(|call| call.stage != Stage::Answered && call.own_answer().is_none())
}

/// A call that its server has not answered and that is as wanted, if there is any.
fn pick(
    calls: &mut BTreeMap<ChannelId, VecDeque<ModelCall>>,
    choice: u8,
    wanted: impl Fn(&ModelCall) -> bool,
) -> Option<(ChannelId, &mut ModelCall)> {
    let mut found: Vec<(ChannelId, &mut ModelCall)> = calls
        .iter_mut()
        .filter_map(|(&id, calls)| Some((id, current(calls)?)))
        .filter(|(_, call)| wanted(call))
        .collect();
    if found.is_empty() {
        return None;
    }
    let index = usize::from(choice) % found.len();
    Some(found.swap_remove(index))
}

/// The call with this token, which must be the oldest of its channel.
fn front_with(
    calls: &mut BTreeMap<ChannelId, VecDeque<ModelCall>>,
    token: usize,
) -> &mut ModelCall {
    calls
        .values_mut()
        .filter_map(VecDeque::front_mut)
        .find(|call| call.token == token)
        .unwrap_or_else(|| panic!("call {token} is not the oldest of its channel"))
}

fn pop_front_with(calls: &mut BTreeMap<ChannelId, VecDeque<ModelCall>>, token: usize) {
    for calls in calls.values_mut() {
        if calls.front().is_some_and(|call| call.token == token) {
            calls.pop_front();
        }
    }
}

/// Data that tells where it was cut or mixed up.
pub(super) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    const STEPS: [u8; 509] = {
        let (mut steps, mut at) = ([0; 509], 0_u8);
        let mut i = 0;
        while i < steps.len() {
            steps[i] = at;
            at = if at == 250 { 0 } else { at + 1 };
            i += 1;
        }
        steps
    };
    // Copied in rows: made byte by byte it would be most of what a run does.
    let mut out = STEPS.repeat(len / STEPS.len() + 2);
    out.drain(..seed % STEPS.len());
    out.truncate(len);
    out
}

/// The effects of the bytes of a hostile peer.
#[derive(Debug, Default)]
struct Ledger {
    /// The number of bytes that it has sent.
    bytes: usize,
    events: usize,
    /// Open calls whose handlers were told that their callers have gone.
    told: HashSet<ChannelId>,
}

impl Ledger {
    fn on_event(&mut self, event: &ServerEvent) {
        self.events += 1;
        match event {
            ServerEvent::Request { channel, .. }
            | ServerEvent::RequestBegun { channel, .. }
            | ServerEvent::RequestTooLarge { channel, .. }
            | ServerEvent::StreamBegun { channel, .. } => {
                self.told.remove(channel);
            }
            ServerEvent::Cancelled { channel } => {
                let is_new = self.told.insert(*channel);
                assert!(is_new, "the handler on channel {channel} is told twice");
            }
            _ => {}
        }
    }

    /// Events and memory are paid for by bytes, and every open call that counts as cancelled was
    /// told so.
    fn check(&self, machine: &Connection, channels: impl IntoIterator<Item = ChannelId>) {
        // The shortest frame has 11 bytes and begins, carries and ends a stream; a cancellation has
        // 6.
        assert!(
            self.events <= self.bytes / 2 + 8,
            "{} events for {} bytes",
            self.events,
            self.bytes
        );
        let held = machine.buffered + machine.held;
        let least = self.bytes * (1 + WAITING_COST / 11);
        assert!(held <= least, "{held} bytes for {}", self.bytes);
        for id in channels {
            let channel = machine.channels.get(id);
            let open = channel.and_then(|channel| channel.open.as_ref());
            let cancelled = open.is_some_and(|open| open.cancelled);
            assert_eq!(cancelled, self.told.contains(&id), "channel {id}");
        }
    }
}

/// A server that a hostile client speaks to: whatever comes, it keeps its books and speaks the
/// protocol itself.
fn hostile_client(cut: u8, data: &[u8]) {
    let now = Instant::now();
    let mut server = End::new(Side::Server, small_limits(), now);
    let mut watch = Watch::new(Side::Client);
    let mut open = VecDeque::new();
    let mut ledger = Ledger::default();
    for (turn, piece) in pieces(cut, data).enumerate() {
        ledger.bytes += piece.len();
        if !server.machine.wants_read() && open.is_empty() {
            break;
        }
        let result = server.feed(now, piece);
        for round in 0.. {
            while let Some(event) = server.machine.poll_server_event() {
                ledger.on_event(&event);
                match event {
                    ServerEvent::Request { channel, .. }
                    | ServerEvent::RequestTooLarge { channel, .. }
                    | ServerEvent::StreamBegun { channel, .. } => open.push_back(channel),
                    ServerEvent::RequestBegun { channel, .. } if cut & 1 == 1 => {
                        server.machine.stream_request(channel);
                    }
                    ServerEvent::RequestPart {
                        channel,
                        ends: true,
                        ..
                    } => open.push_back(channel),
                    // Some handlers answer before they have read everything.
                    ServerEvent::RequestPart { channel, .. } if cut & 2 == 2 => {
                        server.reply(channel, pattern(turn, 3), true);
                    }
                    _ => {}
                }
            }
            if round > 4 || open.is_empty() || (turn % 3 == 0 && result.is_ok()) {
                break;
            }
            if let Some(channel) = open.pop_front()
                && (server.machine.channels.get(channel)).is_some_and(|state| state.open.is_some())
            {
                let ends = turn % 5 != 1;
                let size = SIZES[(turn + round) % SIZES.len()];
                server.reply(channel, pattern(turn, size), ends);
                if !ends {
                    open.push_back(channel);
                }
            }
        }
        let channels = (0..=server.machine.server.granted).map(ChannelId);
        let channels: Vec<_> = channels.chain(server.machine.one_way_channels()).collect();
        server.check_accounting(channels.iter().copied());
        // What was answered meanwhile is no open call any more.
        let machine = &server.machine;
        let is_open = |id: &ChannelId| {
            machine
                .channels
                .get(*id)
                .is_some_and(|channel| channel.open.is_some())
        };
        ledger.told.retain(is_open);
        ledger.check(machine, channels);
        watch.see(&server.write(now));
        if result.is_err() {
            return;
        }
    }
}

/// A client that a hostile server speaks to.
fn hostile_server(cut: u8, data: &[u8]) {
    let now = Instant::now();
    let mut client = End::new(Side::Client, small_limits(), now);
    if cut & 1 == 1 {
        client.machine.say_hello();
    }
    client.machine.open_channel();
    client.machine.open_channel();
    let mut watch = Watch::new(Side::Server);
    let mut waiting = HashMap::new();
    let mut ledger = Ledger::default();
    let mut token = 0;
    let mut opened = vec![ChannelId::ZERO];
    for piece in pieces(cut, data) {
        ledger.bytes += piece.len();
        let result = client.feed(now, piece);
        while let Some(event) = client.machine.poll_client_event() {
            ledger.events += 1;
            match event {
                ClientEvent::ChannelOpened(id) => {
                    opened.push(id);
                    for streaming in [false, true, false] {
                        token += 1;
                        let size = SIZES[token % SIZES.len()];
                        let body = pattern(token, size);
                        client.start_call(id, b"/a", body, token, streaming);
                        waiting.insert(token, id);
                    }
                    if cut & 5 == 5 && id.0 % 2 == 0 {
                        // A caller of a stream.
                        token += 1;
                        let mut first = Body::from(vec![DATA, 0]);
                        let path = b"/s";
                        client.machine.start_call(
                            id,
                            path,
                            &mut first,
                            CallId::of(token),
                            Mode::Stream,
                        );
                        waiting.insert(token, id);
                    }
                    if cut & 2 == 2 {
                        client.machine.abandon(id, CallId::of(token));
                        waiting.remove(&token);
                    }
                }
                ClientEvent::Reply { call, .. } => {
                    let token = call.slot();
                    assert!(waiting.remove(&token).is_some(), "nobody waits for {token}");
                }
                ClientEvent::ReplyPart { call, .. } => {
                    let token = call.slot();
                    assert!(waiting.contains_key(&token), "nobody waits for {token}");
                    if cut & 4 == 4 {
                        client.machine.abandon(waiting[&token], CallId::of(token));
                        waiting.remove(&token);
                    }
                }
                _ => {}
            }
        }
        client.check_accounting(opened.iter().copied());
        ledger.check(&client.machine, []);
        watch.see(&client.write(now));
        if result.is_err() {
            return;
        }
    }
}

/// Sees that what a side writes is the protocol.
#[derive(Debug)]
struct Watch {
    decoder: Decoder,
    unfinished: HashMap<ChannelId, bool>,
}

impl Watch {
    fn new(reader: Side) -> Self {
        Self {
            decoder: Decoder::new(reader, &Limits::default()),
            unfinished: HashMap::new(),
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        while let Some(frame) = self.decoder.next_frame().expect("it writes frames") {
            let (status, channel) = (frame.status, frame.channel);
            assert_ne!(status, FrameStatus::Close, "it was not asked to");
            // The further frames of a stream's request name no path.
            let is_further = !status.begins() && frame.path.is_empty();
            assert!(
                is_further || check_label(&frame.path).is_ok(),
                "channel {channel}: {:?}",
                frame.path
            );
            let unfinished = self.unfinished.insert(channel, !status.ends());
            assert_eq!(
                status.begins(),
                !unfinished.unwrap_or(false),
                "{status:?} on channel {channel}"
            );
        }
        assert_eq!(self.decoder.partial(), Partial::Nothing, "half a frame");
    }
}

/// Cuts data into pieces of a few bytes, or of many.
fn pieces(cut: u8, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.chunks(usize::from(cut >> 3).pow(2) + 1)
}

/// Runs the fuzz target `machine`. The first byte chooses the model, the second its variant.
#[cfg_attr(
    not(fuzzing),
    expect(unreachable_pub, reason = "only the fuzzer comes from outside")
)]
pub fn machine(data: &[u8]) {
    let &[who, how, ref data @ ..] = data else {
        return;
    };
    match who % 5 {
        0 => hostile_client(how, data),
        1 => hostile_server(how, data),
        2 => streams::Model::run(&steps(data, 200, Step::read)),
        4 => calls::Model::run(how & 1 == 1, &steps(data, 200, CallStep::read)),
        _ => Model::run(how & 1 == 1, &steps(data, 100, Operation::read)),
    }
}

/// Reads the steps of a run from a fuzzer's bytes, at most so many.
fn steps<'d, T>(
    data: &'d [u8],
    most: usize,
    read: impl Fn(&mut Copied<Iter<'d, u8>>) -> Option<T>,
) -> Vec<T> {
    let mut data = data.iter().copied();
    std::iter::from_fn(|| read(&mut data)).take(most).collect()
}
