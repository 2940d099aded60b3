//! A client and a server with streams between them, and a model of what each side must see. Pure.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{CHUNK_BYTES, End, MESSAGE_BYTES, Pair, pattern, small_limits};
use crate::body::Body;
use crate::error::CallErrorKind;
use crate::frame::{ChannelId, Side};
use crate::limits::Limits;
use crate::proto::slots::CallId;
use crate::proto::stream::DATA;
use crate::proto::stream_state::StreamState;
use crate::proto::{ClientEvent, Mode, ServerEvent, StreamFrame};

const WINDOW: usize = 1024;
const MAX_WINDOW: usize = 4 * WINDOW;
/// Room for a message on every channel; less than all windows could grow by.
const BUFFERED: usize = 4 * MESSAGE_BYTES;

/// Around chunk, window and message limit.
const SIZES: [usize; 10] = [1, 2, 100, 1022, 1023, 1024, 1025, 2500, 3000, 5000];

fn limits() -> Limits {
    small_limits()
        .stream_window(WINDOW)
        .max_stream_window(MAX_WINDOW)
        .max_buffered_bytes(BUFFERED)
}

thread_local! {
    /// The model's time, for those that look at the clock themselves.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn clock() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// An action of the application or the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proto) enum Step {
    /// The client begins a stream on a free channel.
    Open { channel: u8, size: u8 },
    /// The client starts an ordinary call on a free channel; its data may look like a stream's.
    Call { channel: u8, size: u8 },
    /// A side gives a stream more to send.
    Send { side: Side, stream: u8, size: u8 },
    /// A side takes so many parts of a stream.
    Take { side: Side, stream: u8, parts: u8 },
    /// The client has nothing more to send.
    Finish { stream: u8 },
    /// The handler answers.
    Answer { stream: u8, size: u8 },
    /// The caller goes; its handler is aborted, or runs on.
    Cancel { stream: u8, aborts: bool },
    /// A side writes what is ready.
    Write { side: Side },
    /// A side reads at most so many bytes.
    Read { side: Side, bytes: u16 },
}

impl Step {
    /// Reads a step from a fuzzer's bytes.
    pub(super) fn read(data: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let tag = data.next()?;
        let mut byte = || data.next().unwrap_or(0);
        let side = match tag & 0x80 {
            0 => Side::Client,
            _ => Side::Server,
        };
        Some(match tag % 9 {
            0 => Self::Open {
                channel: byte(),
                size: byte(),
            },
            1 => Self::Call {
                channel: byte(),
                size: byte(),
            },
            2 => Self::Send {
                side,
                stream: byte(),
                size: byte(),
            },
            3 => Self::Take {
                side,
                stream: byte(),
                parts: byte() % 4 + 1,
            },
            4 => Self::Finish { stream: byte() },
            5 => Self::Answer {
                stream: byte(),
                size: byte(),
            },
            6 => Self::Cancel {
                stream: byte(),
                aborts: side == Side::Server,
            },
            7 => Self::Write { side },
            _ => Self::Read {
                side,
                bytes: u16::from_be_bytes([byte(), byte()]),
            },
        })
    }
}

/// One direction of a stream as one side has it: what it sends, and what has come from the other.
#[derive(Debug)]
struct Half {
    flow: StreamState,
    /// Bytes that the application has given, and those of them that were handed to the machine.
    given: usize,
    sent: usize,
    /// The total that it was granted. No part may begin beyond it.
    granted: usize,
    /// Bytes that came, and those of them that were taken.
    heard: usize,
    taken: usize,
    /// The total that this side has granted.
    window: usize,
}

impl Half {
    fn new(sent: usize, now: Instant) -> Self {
        let mut flow = StreamState::new(WINDOW, WINDOW, now);
        flow.on_sent(sent);
        Self {
            flow,
            given: sent,
            sent,
            granted: WINDOW,
            heard: 0,
            taken: 0,
            window: WINDOW,
        }
    }

    /// Sends what may be sent, as whoever holds the sending end does.
    fn send(&mut self, end: &mut End, id: ChannelId, seed: usize) {
        let machine = &mut end.machine;
        while self.sent < self.given {
            let has_room = machine.has_stream_room(id);
            if self.flow.cut || !self.flow.has_credit(machine, id) || !has_room {
                return;
            }
            assert!(self.sent < self.granted, "a part beyond what was granted");
            let len = machine.stream_part_bytes().min(self.given - self.sent);
            assert!(len < CHUNK_BYTES, "a frame with its mark is never cut");
            let part = pattern(seed + self.sent, len);
            self.sent += len;
            self.flow.on_sent(len);
            machine.send_stream(id, &mut part.into(), false);
        }
    }

    fn hear(&mut self, heard: StreamFrame, seed: usize, sent: usize) {
        match &heard {
            StreamFrame::Data(part) => {
                assert_eq!(part, &pattern(seed + self.heard, part.len()), "its data");
                assert!(self.heard < self.window, "a part beyond the window");
                self.heard += part.len();
                assert!(self.heard <= sent, "more than was sent");
            }
            StreamFrame::WindowUpdate(bytes) => self.granted += *bytes as usize,
            StreamFrame::Blocked | StreamFrame::End => {}
        }
        self.flow.on_stream_frame(heard, &mut Vec::new());
    }

    /// Takes a part; `false` if there is none. `alive`: the call has not ended here.
    fn take(&mut self, end: &mut End, id: ChannelId, seed: usize, alive: bool) -> bool {
        let before = end.machine.window_growth;
        let part = self
            .flow
            .take_part(&mut end.machine, alive.then_some(id), clock);
        let Some(part) = part else {
            assert_eq!(self.taken, self.heard, "what has come can be taken");
            return false;
        };
        assert!(end.machine.window_growth <= BUFFERED);
        assert!(alive || end.machine.window_growth == before);
        assert_eq!(part, pattern(seed + self.taken, part.len()), "its order");
        self.taken += part.len();
        // What it has granted at most: all that was taken makes room again.
        self.window = self.taken + self.flow.window();
        assert!(self.flow.window() <= MAX_WINDOW);
        true
    }
}

/// One stream.
#[derive(Debug)]
struct Stream {
    token: usize,
    id: ChannelId,
    client: Half,
    /// Its handler, from the moment when it sees the stream until it answers.
    handler: Option<Half>,
    /// The total that the handler had sent when it answered.
    handler_sent: usize,
    finished: bool,
    /// The handler saw the end.
    ended: bool,
    answer: Option<Vec<u8>>,
    /// The caller has gone, or was told that the answer is too large.
    swallowed: bool,
    /// The caller has its outcome.
    outcome: bool,
    aborts: bool,
}

impl Stream {
    /// Returns the position in the pattern at which each direction begins.
    fn seeds(&self) -> (usize, usize) {
        (self.token * 31, self.token * 31 + 7)
    }

    /// Returns `true` if it is still the call on its channel, and wanted.
    fn is_alive(&self) -> bool {
        !self.swallowed && !self.outcome
    }
}

/// Both sides, the bytes between them, and the streams.
#[derive(Debug)]
pub(in crate::proto) struct Model {
    pair: Pair,
    free: Vec<ChannelId>,
    streams: Vec<Stream>,
    /// Ordinary calls under way, and their data.
    calls: BTreeMap<usize, (ChannelId, Vec<u8>)>,
    tokens: usize,
}

impl Model {
    /// Runs the steps, then lets both sides finish, and sees that every channel serves again.
    pub(in crate::proto) fn run(steps: &[Step]) {
        let mut model = Self::new();
        for &step in steps {
            model.apply(step);
            model.check();
        }
        model.settle();
        let free = model.free.len();
        for channel in 0..free {
            let channel = u8::try_from(channel).unwrap_or(0);
            model.apply(Step::Open { channel, size: 9 });
        }
        model.settle();
        assert_eq!(model.free.len(), free);
    }

    fn new() -> Self {
        let mut model = Self {
            pair: Pair::new(limits(), limits()),
            free: Vec::new(),
            streams: Vec::new(),
            calls: BTreeMap::new(),
            tokens: 0,
        };
        model.pair.client.machine.say_hello();
        for _ in 0..4 {
            model.pair.client.machine.open_channel();
        }
        model.settle();
        assert_eq!(model.free.len(), 4);
        model
    }

    fn apply(&mut self, step: Step) {
        self.pair.now += Duration::from_millis(1);
        NOW.set(Some(self.pair.now));
        match step {
            Step::Open { channel, size } => self.open(channel, size),
            Step::Call { channel, size } => self.call(channel, size),
            Step::Send { side, stream, size } => {
                let size = SIZES[usize::from(size) % SIZES.len()];
                let finished = |stream: &Stream| side == Side::Client && stream.finished;
                if let Some(index) = self.pick(stream, |stream| !finished(stream)) {
                    if let Some(half) = self.streams[index].half(side) {
                        half.given += size;
                    }
                    self.send(index);
                }
            }
            Step::Take {
                side,
                stream,
                parts,
            } => {
                if let Some(index) = self.pick(stream, |_| true) {
                    for _ in 0..parts {
                        self.take(index, side);
                    }
                }
            }
            Step::Finish { stream } => {
                let unfinished = |stream: &Stream| !stream.finished && stream.is_alive();
                if let Some(index) = self.pick(stream, unfinished) {
                    self.finish(index);
                }
            }
            Step::Answer { stream, size } => {
                if let Some(index) = self.pick(stream, |stream| stream.handler.is_some()) {
                    let size = SIZES[usize::from(size) % SIZES.len()];
                    self.answer(index, size);
                }
            }
            Step::Cancel { stream, aborts } => {
                if let Some(index) = self.pick(stream, Stream::is_alive) {
                    let stream = &mut self.streams[index];
                    stream.aborts = aborts;
                    stream.swallowed = true;
                    stream
                        .client
                        .flow
                        .release(&mut self.pair.client.machine, None);
                    assert!(
                        !self
                            .pair
                            .client
                            .machine
                            .abandon(stream.id, CallId::of(stream.token))
                    );
                }
            }
            Step::Write { side } => {
                self.write(side);
            }
            Step::Read { side, bytes } => {
                self.read(side, usize::from(bytes));
            }
        }
    }

    fn pick(&self, choice: u8, wanted: impl Fn(&Stream) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.streams.len())
            .filter(|&index| wanted(&self.streams[index]))
            .collect();
        (!found.is_empty()).then(|| found[usize::from(choice) % found.len()])
    }

    fn take_channel(&mut self, choice: u8) -> Option<ChannelId> {
        let count = self.free.len();
        (count > 0).then(|| self.free.swap_remove(usize::from(choice) % count))
    }

    fn open(&mut self, channel: u8, size: u8) {
        let Some(id) = self.take_channel(channel) else {
            return;
        };
        self.tokens += 1;
        let token = self.tokens;
        let most = self.pair.client.machine.stream_part_bytes();
        let size = SIZES[usize::from(size) % SIZES.len()].min(most);
        let stream = Stream {
            token,
            id,
            client: Half::new(size, self.pair.now),
            handler: None,
            handler_sent: 0,
            finished: false,
            ended: false,
            answer: None,
            swallowed: false,
            outcome: false,
            aborts: false,
        };
        let mut first = Body::from(pattern(stream.seeds().0, size));
        let mut first = first.marked(DATA);
        self.pair
            .client
            .machine
            .start_call(id, b"/s", &mut first, CallId::of(token), Mode::Stream);
        self.streams.push(stream);
    }

    fn call(&mut self, channel: u8, size: u8) {
        let Some(id) = self.take_channel(channel) else {
            return;
        };
        self.tokens += 1;
        let size = SIZES[usize::from(size) % SIZES.len()].min(MESSAGE_BYTES);
        let mut body = pattern(self.tokens, size);
        // As the mark of a stream, those beside it, or neither.
        body[0] = DATA - 1 + channel % 8;
        self.pair
            .client
            .start_call(id, b"/p", body.clone(), self.tokens, false);
        self.calls.insert(self.tokens, (id, body));
    }

    fn send(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        let (to_server, to_client) = stream.seeds();
        if stream.is_alive() {
            stream
                .client
                .send(&mut self.pair.client, stream.id, to_server);
        }
        if let Some(handler) = &mut stream.handler {
            handler.send(&mut self.pair.server, stream.id, to_client);
        }
    }

    fn take(&mut self, index: usize, side: Side) -> bool {
        let stream = &mut self.streams[index];
        let (to_server, to_client) = stream.seeds();
        let alive = stream.is_alive();
        match (side, &mut stream.handler) {
            (Side::Client, _) if stream.swallowed => false,
            (Side::Client, _) => {
                let (client, end) = (&mut stream.client, &mut self.pair.client);
                client.take(end, stream.id, to_client, alive)
            }
            (Side::Server, Some(handler)) => {
                handler.take(&mut self.pair.server, stream.id, to_server, true)
            }
            (Side::Server, None) => false,
        }
    }

    fn finish(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        // What was given must be gone.
        if stream.client.sent == stream.client.given {
            stream.finished = true;
            let machine = &mut self.pair.client.machine;
            machine.send_stream(stream.id, &mut Body::default(), true);
        }
    }

    fn answer(&mut self, index: usize, size: usize) {
        let stream = &mut self.streams[index];
        let Some(handler) = stream.handler.take() else {
            return;
        };
        handler.flow.release(&mut self.pair.server.machine, None);
        stream.handler_sent = handler.sent;
        let answer = pattern(stream.token, size);
        assert!(self.pair.server.reply(stream.id, answer.clone(), true));
        stream.answer = Some(answer);
        self.server_events();
    }

    fn write(&mut self, side: Side) -> bool {
        let written = self.pair.write(side);
        self.send_all();
        written
    }

    fn read(&mut self, side: Side, bytes: usize) -> bool {
        let now = self.pair.now;
        let (to, wire) = self.pair.reader(side);
        if wire.is_empty() {
            to.machine.timers().on_read_idle(now);
        }
        if !self.pair.read(side, bytes) {
            return false;
        }
        match side {
            Side::Client => self.client_events(),
            Side::Server => self.server_events(),
        }
        self.send_all();
        true
    }

    fn send_all(&mut self) {
        for index in 0..self.streams.len() {
            self.send(index);
        }
    }

    /// The stream whose turn it is on a channel: there is one at a time.
    fn on_channel(&self, id: ChannelId) -> Option<usize> {
        self.streams
            .iter()
            .position(|stream| stream.id == id && stream.answer.is_none())
    }

    fn server_events(&mut self) {
        while let Some(event) = self.pair.server.machine.poll_server_event() {
            match event {
                ServerEvent::StreamBegun {
                    channel, is_busy, ..
                } => {
                    let index = self.on_channel(channel).expect("it was opened");
                    self.streams[index].handler = Some(Half::new(0, self.pair.now));
                    if is_busy {
                        self.answer(index, 1);
                    }
                }
                ServerEvent::Stream { channel, frame } => {
                    // What was still on its way when it was answered is for nobody.
                    let Some(index) = self.on_channel(channel) else {
                        continue;
                    };
                    let stream = &mut self.streams[index];
                    let (seed, sent) = (stream.seeds().0, stream.client.sent);
                    let handler = stream.handler.as_mut().expect("its handler runs");
                    if frame == StreamFrame::End {
                        assert!(stream.finished && handler.heard == sent);
                        stream.ended = true;
                    }
                    handler.hear(frame, seed, sent);
                }
                ServerEvent::Cancelled { channel } => {
                    let Some(index) = self.on_channel(channel) else {
                        continue;
                    };
                    let stream = &mut self.streams[index];
                    assert!(stream.swallowed, "its caller has not gone");
                    let handler = stream.handler.as_mut().expect("its handler runs");
                    handler.flow.on_reset(&mut Vec::new());
                    if stream.aborts {
                        self.answer(index, 1);
                    }
                }
                ServerEvent::Request { channel, body, .. } => {
                    assert!(self.pair.server.reply(channel, body, true));
                }
                ServerEvent::RequestBegun { .. } | ServerEvent::PeerHello(_) => {}
                event => panic!("{event:?} is not expected at the server"),
            }
        }
    }

    fn client_events(&mut self) {
        while let Some(event) = self.pair.client.machine.poll_client_event() {
            match event {
                ClientEvent::ChannelOpened(id) => self.free.push(id),
                ClientEvent::PeerHello(hello) => assert!(hello.is_some()),
                ClientEvent::Stream { call, frame } => {
                    let stream = self.stream(call.slot());
                    assert!(stream.is_alive(), "nobody hears it");
                    let sent = stream
                        .handler
                        .as_ref()
                        .map_or(stream.handler_sent, |h| h.sent);
                    let seed = stream.seeds().1;
                    stream.client.hear(frame, seed, sent);
                }
                ClientEvent::Reply { call, result } => self.on_reply(call.slot(), result),
                ClientEvent::Swallowed { channel } => {
                    let index = self
                        .streams
                        .iter()
                        .position(|stream| stream.id == channel && !stream.outcome)
                        .expect("a stream was on it");
                    let stream = self.streams.swap_remove(index);
                    assert!(stream.swallowed && stream.answer.is_some());
                    self.free.push(channel);
                }
                event => panic!("{event:?} is not expected at the client"),
            }
        }
    }

    fn stream(&mut self, token: usize) -> &mut Stream {
        let mut streams = self.streams.iter_mut();
        streams
            .find(|stream| stream.token == token)
            .expect("there is such a stream")
    }

    fn on_reply(&mut self, token: usize, result: Result<Bytes, CallErrorKind>) {
        if let Some((id, body)) = self.calls.remove(&token) {
            assert_eq!(result.expect("an echo"), body);
            self.free.push(id);
            return;
        }
        let mut streams = self.streams.iter_mut();
        let stream = streams.find(|stream| stream.token == token);
        let stream = stream.expect("there is such a stream");
        assert!(stream.is_alive(), "nobody waits for it");
        assert_eq!(
            stream.client.heard, stream.handler_sent,
            "all of the stream"
        );
        let answer = stream.answer.as_ref().expect("it was answered");
        match result {
            Ok(body) => {
                assert_eq!(body, answer);
                stream.outcome = true;
                let id = stream.id;
                self.free.push(id);
            }
            Err(CallErrorKind::MessageTooLarge { .. }) => {
                assert!(answer.len() > MESSAGE_BYTES);
                stream.swallowed = true;
                let flow = &stream.client.flow;
                flow.release(&mut self.pair.client.machine, None);
            }
            Err(error) => panic!("stream {token} fails: {error}"),
        }
    }

    fn check(&self) {
        for end in [&self.pair.client, &self.pair.server] {
            end.check_accounting((0..=8).map(ChannelId));
        }
        for stream in &self.streams {
            for half in [Some(&stream.client), stream.handler.as_ref()]
                .into_iter()
                .flatten()
            {
                let held = half.heard - half.taken;
                assert!(held < half.flow.window() + CHUNK_BYTES, "{held} bytes wait");
            }
        }
    }

    /// Lets everything go its way until nothing moves, and sees that nothing is left.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Client, Side::Server] {
                moved |= self.write(side);
            }
            for side in [Side::Server, Side::Client] {
                moved |= self.read(side, usize::MAX);
            }
            for index in 0..self.streams.len() {
                self.send(index);
                for side in [Side::Client, Side::Server] {
                    while self.take(index, side) {
                        moved = true;
                    }
                }
                if self.streams[index].is_alive() && !self.streams[index].finished {
                    self.finish(index);
                    moved |= self.streams[index].finished;
                }
            }
            self.forget();
            // A handler answers when it has read all, has sent all, and nothing else moves.
            let done = |stream: &Stream| {
                stream.handler.as_ref().is_some_and(|handler| {
                    handler.flow.cut || (stream.ended && handler.sent == handler.given)
                })
            };
            if !moved && let Some(index) = self.pick(0, done) {
                let half = self.streams[index].handler.as_ref();
                assert!(half.is_some_and(|half| half.flow.cut || half.flow.is_at_end()));
                self.answer(index, 100);
                moved = true;
            }
            if !moved {
                break;
            }
        }
        assert!(
            self.streams.is_empty(),
            "streams never end: {:?}",
            self.streams
        );
        let left: Vec<usize> = self.calls.keys().copied().collect();
        assert!(left.is_empty(), "calls never end: {left:?}");
        self.check();
        let (client, server) = (&self.pair.client.machine, &self.pair.server.machine);
        assert_eq!(
            (client.window_growth, server.window_growth),
            (0, 0),
            "windows"
        );
        assert_eq!(server.server.streamed, 0, "open calls");
        self.pair.check_at_rest(&self.free);
    }

    /// Gives up the streams whose callers have taken the answer and all before it.
    fn forget(&mut self) {
        let machine = &mut self.pair.client.machine;
        self.streams.retain(|stream| {
            let is_over = stream.outcome && stream.client.taken == stream.client.heard;
            if is_over {
                stream.client.flow.release(machine, None);
            }
            !is_over
        });
    }
}

impl Stream {
    fn half(&mut self, side: Side) -> Option<&mut Half> {
        match side {
            Side::Client => self.is_alive().then_some(&mut self.client),
            Side::Server => self.handler.as_mut(),
        }
    }
}
