//! The calls of a client, with its queue and its pool of channels, against a server that answers or
//! not: whatever happens, every call ends once and no channel is lost. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;

use super::{End, pattern, small_limits};
use crate::body::Body;
use crate::error::{CallError, CallErrorKind, Execution};
use crate::frame::{ChannelId, Side};
use crate::proto::calls::{CallTable, Retirement, Start};
use crate::proto::slots::CallId;
use crate::proto::{ClientEvent, Mode, ServerEvent};

/// Sizes of messages: small ones share the queue's buffer, large ones do not.
const SIZES: [usize; 5] = [1, 30, 900, 1500, 3000];

/// Maximum number of channels that the server grants.
const MAX_CHANNELS: usize = 3;

/// Maximum number of calls that wait for a channel.
const MAX_QUEUED: usize = 6;

/// An action of a caller, the server, the network or the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallStep {
    /// A caller starts a call with this much time, in milliseconds; on its own channel if it has
    /// leased one.
    Start {
        size: u8,
        millis: u8,
        one_way: bool,
        leased: bool,
    },
    /// A caller wants a channel of its own.
    Lease { millis: u8 },
    /// A caller goes.
    Abandon { call: u8 },
    /// The owner of a leased channel goes.
    ReturnLease { lease: u8 },
    /// The server answers a request.
    Answer { request: u8, size: u8 },
    /// Time passes.
    Wait { millis: u8 },
    /// A side writes what is ready, and the other one reads a part of it.
    Move { side: Side, bytes: u16 },
}

impl CallStep {
    /// Reads a step from a fuzzer's bytes.
    pub(super) fn read(data: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let tag = data.next()?;
        let mut byte = || data.next().unwrap_or(0);
        Some(match tag % 8 {
            0 | 1 => Self::Start {
                size: byte(),
                millis: byte(),
                one_way: tag & 0x80 != 0 && tag & 0x40 != 0,
                leased: tag & 0x80 != 0,
            },
            2 => Self::Lease { millis: byte() },
            3 => Self::Abandon { call: byte() },
            4 => Self::ReturnLease { lease: byte() },
            5 => Self::Answer {
                request: byte(),
                size: byte(),
            },
            6 => Self::Wait { millis: byte() },
            _ => Self::Move {
                side: if tag & 0x80 == 0 {
                    Side::Client
                } else {
                    Side::Server
                },
                bytes: u16::from_be_bytes([byte(), byte()]),
            },
        })
    }
}

/// A call that has not ended for its caller.
#[derive(Debug)]
struct Caller {
    id: CallId,
    /// The body of its request; `None` for a caller that waits for a channel to lease.
    body: Option<Vec<u8>>,
    deadline: Instant,
    one_way: bool,
}

#[derive(Debug)]
pub(crate) struct Model {
    now: Instant,
    client: End,
    server: End,
    calls: CallTable,
    to_server: BytesMut,
    to_client: BytesMut,
    callers: Vec<Caller>,
    leases: Vec<ChannelId>,
    opened: Vec<ChannelId>,
    /// Requests that their handlers have, with the replies that they will get.
    requests: VecDeque<(ChannelId, Bytes)>,
    /// Number of calls that were started, which also tells their bodies apart.
    started: usize,
    was_rejected: bool,
}

impl Model {
    fn new(hello: bool) -> Self {
        let now = Instant::now();
        let limits = || small_limits().max_channels(MAX_CHANNELS + 1);
        let mut model = Self {
            now,
            client: End::new(Side::Client, small_limits(), now),
            server: End::new(Side::Server, limits(), now),
            calls: CallTable::new(8, MAX_QUEUED),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            callers: Vec::new(),
            leases: Vec::new(),
            opened: Vec::new(),
            requests: VecDeque::new(),
            started: 0,
            was_rejected: false,
        };
        if hello {
            model.client.machine.say_hello();
        }
        model.calls.open_first(&mut model.client.machine);
        let places = Arc::new(Semaphore::new(0));
        let age = Duration::ZERO;
        model.calls.may_retire(Retirement { age, places }, now);
        model
    }

    /// Runs the steps, then lets both sides finish.
    pub(crate) fn run(hello: bool, steps: &[CallStep]) {
        let mut model = Self::new(hello);
        for &step in steps {
            model.apply(step);
            model.check();
        }
        model.settle();
    }

    fn apply(&mut self, step: CallStep) {
        match step {
            CallStep::Start {
                size,
                millis,
                one_way,
                leased,
            } => self.start(size, millis, one_way, leased),
            CallStep::Lease { millis } => {
                let deadline = self.deadline(millis);
                let machine = &mut self.client.machine;
                match self.calls.start_lease(machine, self.now, deadline) {
                    Ok(id) => self.callers.push(Caller {
                        id,
                        body: None,
                        deadline,
                        one_way: false,
                    }),
                    Err(error) => self.check_rejection(&error, deadline),
                }
            }
            CallStep::Abandon { call } => {
                if !self.callers.is_empty() {
                    let index = usize::from(call) % self.callers.len();
                    let caller = self.callers.swap_remove(index);
                    let now = self.now;
                    self.calls
                        .abandon(&mut self.client.machine, caller.id, || now);
                }
            }
            CallStep::ReturnLease { lease } => {
                if !self.leases.is_empty() {
                    let index = usize::from(lease) % self.leases.len();
                    let channel = self.leases.swap_remove(index);
                    self.calls
                        .return_lease(&mut self.client.machine, channel, self.now);
                }
            }
            CallStep::Answer { request, size } => self.answer(request, size),
            CallStep::Wait { millis } => {
                self.now += Duration::from_millis(millis.into());
                let machine = &mut self.client.machine;
                self.calls.expire(machine, self.now, &mut Vec::new());
            }
            CallStep::Move { side, bytes } => self.transfer(side, usize::from(bytes)),
        }
        self.take_outcomes();
    }

    fn deadline(&self, millis: u8) -> Instant {
        self.now + Duration::from_millis(u64::from(millis))
    }

    fn start(&mut self, size: u8, millis: u8, one_way: bool, leased: bool) {
        let deadline = self.deadline(millis);
        self.started += 1;
        let body = pattern(self.started, SIZES[usize::from(size) % SIZES.len()]);
        let on = self.leases.last().copied().filter(|_| leased);
        let start = Start {
            now: self.now,
            deadline,
            on,
            mode: if one_way && on.is_none() {
                Mode::OneWay
            } else {
                Mode::Whole
            },
        };
        let mut data = Body::from(body.clone());
        let machine = &mut self.client.machine;
        match self.calls.start(machine, "/echo", &start, &mut data, None) {
            Ok(id) => self.callers.push(Caller {
                id,
                body: Some(body),
                deadline,
                one_way: start.mode == Mode::OneWay,
            }),
            Err(error) => self.check_rejection(&error, deadline),
        }
    }

    fn check_rejection(&self, error: &CallError, deadline: Instant) {
        assert_eq!(error.execution(), Execution::NotSent);
        match error.kind() {
            CallErrorKind::Timeout => assert!(deadline <= self.now),
            CallErrorKind::QueueFull { limit } => assert_eq!(*limit, MAX_QUEUED),
            kind => panic!("a call is rejected: {kind}"),
        }
    }

    fn answer(&mut self, request: u8, size: u8) {
        if self.requests.is_empty() {
            return;
        }
        // Requests of one channel are shown one after the other, so any of them may be next.
        let index = usize::from(request) % self.requests.len();
        let Some((channel, mut reply)) = self.requests.remove(index) else {
            return;
        };
        if size.is_multiple_of(8) {
            // Larger than any client takes.
            reply = Bytes::from(vec![1; 4000]);
        }
        self.server.reply(channel, reply, true);
        self.server_events();
    }

    fn server_events(&mut self) {
        while let Some(event) = self.server.machine.poll_server_event() {
            match event {
                ServerEvent::Request { channel, body, .. } => {
                    self.requests.push_back((channel, body));
                }
                ServerEvent::Cancelled { channel } => {
                    self.requests.retain(|&(of, _)| of != channel);
                    self.server.reply(channel, "cancelled", true);
                }
                ServerEvent::RequestBegun { .. } | ServerEvent::PeerHello(_) => {}
                event => panic!("{event:?} of a request that is no such one"),
            }
        }
    }

    /// Writes what `side` has, and lets the other one read at most `bytes` of it.
    fn transfer(&mut self, side: Side, bytes: usize) {
        let (from, wire) = match side {
            Side::Client => (&mut self.client, &mut self.to_server),
            Side::Server => (&mut self.server, &mut self.to_client),
        };
        wire.extend_from_slice(&from.write(self.now));
        let read = wire.split_to(bytes.min(wire.len()));
        match side {
            Side::Client => {
                let result = self.server.feed(self.now, &read);
                result.expect("a client keeps to the protocol");
                self.server_events();
            }
            Side::Server => {
                self.client.decoder.feed(&read);
                let timers = self.client.machine.timers();
                timers.on_read(self.now, false, !read.is_empty());
                while let Some(frame) = self.client.decoder.next_frame().expect("it sends frames") {
                    let result = self.client.machine.handle_frame(frame.borrowed());
                    result.expect("a server keeps to the protocol");
                    self.client_events();
                }
            }
        }
    }

    /// Applies the events of one frame.
    fn client_events(&mut self) {
        let machine = &mut self.client.machine;
        while let Some(event) = machine.poll_client_event() {
            match &event {
                ClientEvent::ChannelOpened(id) if self.opened.len() < machine.peer_channels() => {
                    self.opened.push(*id);
                }
                ClientEvent::ChannelRejected { .. } => self.was_rejected = true,
                _ => {}
            }
            let wakers = &mut Vec::new();
            self.calls.handle_event(machine, event, self.now, wakers);
        }
    }

    /// Takes the outcomes that are there, as callers do.
    fn take_outcomes(&mut self) {
        let callers = std::mem::take(&mut self.callers);
        for caller in callers {
            let machine = &mut self.client.machine;
            let wants_lease = caller.body.is_none();
            let found = self
                .calls
                .poll_slot(machine, caller.id, Waker::noop(), |_, slot| {
                    let leased = slot.leased().filter(|_| wants_lease);
                    leased
                        .map(|channel| (Ok(channel), true))
                        .or_else(|| slot.take_outcome().map(|outcome| (Err(outcome), true)))
                });
            match found {
                None => self.callers.push(caller),
                Some((Ok(channel), _)) => self.leases.push(channel),
                Some((Err(outcome), _)) => self.check_outcome(&caller, outcome),
            }
        }
    }

    fn check_outcome(&self, caller: &Caller, outcome: Result<Bytes, CallError>) {
        match outcome {
            Ok(reply) if caller.one_way => assert!(reply.is_empty()),
            Ok(reply) => assert_eq!(Some(&reply[..]), caller.body.as_deref(), "its own reply"),
            Err(error) => match error.kind() {
                CallErrorKind::Timeout => assert!(caller.deadline <= self.now, "it has time"),
                CallErrorKind::MessageTooLarge { .. } => {
                    assert_eq!(error.execution(), Execution::MayHaveExecuted);
                }
                CallErrorKind::ChannelRejected { .. } => assert!(self.was_rejected),
                kind => panic!("a call fails: {kind}"),
            },
        }
    }

    fn check(&self) {
        self.calls.check(&self.client.machine, &self.opened);
    }

    /// Lets everything end: all requests are answered, and callers take their outcomes.
    fn settle(&mut self) {
        while let Some(channel) = self.leases.pop() {
            self.calls
                .return_lease(&mut self.client.machine, channel, self.now);
        }
        loop {
            let before = (self.client.machine.has_output(), self.callers.len());
            self.transfer(Side::Client, usize::MAX);
            while !self.requests.is_empty() {
                self.answer(0, 1);
            }
            self.transfer(Side::Server, usize::MAX);
            self.take_outcomes();
            while let Some(channel) = self.leases.pop() {
                self.calls
                    .return_lease(&mut self.client.machine, channel, self.now);
            }
            self.check();
            let moves = self.client.machine.has_output() || self.server.machine.has_output();
            if !moves && before == (false, self.callers.len()) {
                break;
            }
        }
        assert!(self.callers.is_empty(), "{:?}", self.callers);
        assert_eq!(self.calls.in_flight(), 0);
        let unused = self
            .opened
            .iter()
            .filter(|&&id| self.client.machine.awaits_reply(id));
        assert_eq!(unused.count(), 0, "channels that wait for replies");
    }
}
