//! The server's side of a recording, played against our client by a script.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use iip_core::{CallError, CallErrorKind, Channel, Client, Execution};

use super::table::OnClient;
use crate::common::frame::{RawFrame, brief};
use crate::common::peer::{Peer, granted};
use crate::common::transcript::{Direction, Transcript, What};
use crate::common::victim::{Pending, Victim, soon};
use crate::common::{GUARD, generate, spawn, within};

/// A step of a script that differs from its recording. Channels and calls are counted from 1, in
/// the order in which the script opens and makes them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Our client asks for a channel and is granted the next number.
    Open,
    /// Our client asks for a channel and gets this body as the reply.
    OpenGranted(&'static str),
    /// The outcome of that: a channel, an error, or the rejection with this code.
    OpenWorks,
    OpenFails,
    OpenRejected(i64),
    /// A call on a channel: path and body.
    Call(usize, &'static str, &'static str),
    /// A call on a channel that our client takes from its pool, seen by the server.
    PoolCall(&'static str, &'static str),
    /// The server has read the request of this call, and it is the expected one.
    Seen(usize),
    /// The server sends a reply on a channel: path and body.
    Send(u32, &'static str, &'static str),
    /// The server sends the reply to this call on the channel of the call.
    ReplyTo(usize, &'static str),
    /// The server sends these bytes.
    Bytes(&'static [u8]),
    /// This call gets this reply.
    Gets(usize, &'static str),
    /// This call has nothing yet, although our client has read everything the server sent.
    GetsNothing(usize),
    /// The caller of this call drops it.
    GiveUp(usize),
    /// The owner of this channel drops it.
    DropChannel(usize),
    /// This call fails at once, because the connection was lost.
    Lost(usize),
    /// Our client closes the connection by itself, and makes a new one for the next call.
    ClosesByItself,
    /// A call on a channel with a path that our client rejects.
    RejectsPath(usize, &'static str),
    /// The same with a path of this length.
    RejectsLongPath(usize, usize),
    /// A call on a channel with a body of this length that our client rejects.
    TooLarge(usize, usize),
}

/// Plays the server's side of `transcript`, or the steps given instead, and fails unless our client
/// behaves as expected.
pub(crate) async fn plays(transcript: Arc<Transcript>, how: OnClient) {
    match how {
        OnClient::Mirrors => mirrors(&transcript, Leaves::Nothing, Ends::AsRecorded).await,
        OnClient::MirrorsWithout(_) => {
            mirrors(&transcript, Leaves::WhatOursCannotSend, Ends::AsRecorded).await
        }
        OnClient::Closes(_) => mirrors(&transcript, Leaves::Nothing, Ends::ByItself).await,
        OnClient::Instead(_, steps) => Script::connect().await.run(&steps).await,
    }
}

/// The client frames of the recording that are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Nothing,
    WhatOursCannotSend,
}

/// The end of a connection that the recorded client closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    AsRecorded,
    ByItself,
}

/// A scripted server with our client connected to it.
struct Link {
    victim: Victim,
    peer: Peer,
}

impl Link {
    async fn connect() -> Self {
        let (victim, peer) = Victim::with_peer(Client::builder().connections(1)).await;
        Self { victim, peer }
    }

    /// Checks that the lost connection is replaced: the next call gets its reply from a
    /// well-behaved server.
    async fn serves_over_a_new_connection(&self) {
        self.victim.echoes_over_a_new_connection("after").await;
    }
}

/// Checks that the caller soon learns that the connection was lost or never became ready.
async fn lost<T>(what: &str, pending: Pending<T>) {
    match soon(what, pending).await {
        Err(error) => assert!(
            matches!(
                error.kind(),
                CallErrorKind::ConnectionLost(_) | CallErrorKind::Connect { .. }
            ),
            "{what}: the connection was lost, but the caller got: {error}"
        ),
        Ok(_) => panic!("{what}: a reply although the connection was lost"),
    }
}

/// One connection of a recording, between our client and the script.
struct Mirror<'a> {
    name: &'a str,
    link: Link,
    opening: VecDeque<Pending<Channel>>,
    /// The channels in the order of their grants. The Go client counted them by itself, so the n-th
    /// of them is its number n.
    channels: Vec<Channel>,
    calls: BTreeMap<u32, VecDeque<Pending<Bytes>>>,
    /// The outcome of a reply in several frames.
    partial: BTreeMap<u32, Vec<u8>>,
}

async fn mirrors(transcript: &Transcript, leaves: Leaves, ends: Ends) {
    let mut mirrors: BTreeMap<usize, Mirror<'_>> = BTreeMap::new();
    for step in &transcript.steps {
        let connection = step.connection;
        if let What::Connected = step.what {
            mirrors.insert(connection, Mirror::connect(&transcript.name).await);
            continue;
        }
        let Some(mirror) = mirrors.get_mut(&connection) else {
            continue;
        };
        match &step.what {
            What::Frame(Direction::ClientToServer, recorded) => {
                let sendable = leaves == Leaves::Nothing || mirror.can_send(&recorded.frame);
                if sendable {
                    mirror.sends(&recorded.frame).await;
                }
            }
            What::Frame(Direction::ServerToClient, recorded) => {
                let asked = mirror.awaits(&recorded.frame);
                if leaves == Leaves::Nothing || asked {
                    mirror.receives(&recorded.frame).await;
                }
            }
            What::Cut(Direction::ClientToServer, _) => {
                assert!(
                    leaves == Leaves::WhatOursCannotSend,
                    "our client sends whole frames"
                );
            }
            What::Cut(Direction::ServerToClient, bytes) => mirror.link.peer.send(bytes).await,
            What::ClientClosed { first: true } => {
                let mirror = mirrors.remove(&connection).expect("it is there");
                match ends {
                    Ends::AsRecorded => mirror.closed_by_caller().await,
                    Ends::ByItself => mirror.closed_by_our_client().await,
                }
            }
            What::ServerClosed { first: true, reset } => {
                let mirror = mirrors.remove(&connection).expect("it is there");
                mirror.closed_by_server(*reset).await;
            }
            _ => {}
        }
    }
    for (_, mirror) in mirrors {
        mirror.closed_by_caller().await;
    }
}

impl<'a> Mirror<'a> {
    async fn connect(name: &'a str) -> Self {
        let link = Link::connect().await;
        Self {
            name,
            link,
            opening: VecDeque::new(),
            channels: Vec::new(),
            calls: BTreeMap::new(),
            partial: BTreeMap::new(),
        }
    }

    /// Returns `true` if our client can send this: whole requests with a path that is text, on a
    /// channel it was granted.
    fn can_send(&self, frame: &RawFrame) -> bool {
        let RawFrame {
            status,
            path,
            channel,
            body,
        } = frame;
        let opens = path == b"/sys/new_channel" && *channel == 0;
        let granted = (1..=self.channels.len()).contains(&(*channel as usize));
        let sane = (1..=2048).contains(&path.len())
            && std::str::from_utf8(path).is_ok()
            && !body.is_empty();
        *status == 1 && sane && (opens || granted) && path != b"/sys/delete_channel"
    }

    /// Returns `true` if a call waits for this reply.
    fn awaits(&self, frame: &RawFrame) -> bool {
        match frame.channel {
            0 => !self.opening.is_empty(),
            channel => self
                .calls
                .get(&channel)
                .is_some_and(|calls| !calls.is_empty()),
        }
    }

    /// The id that our client uses for the Go client's channel `counted`: the granted one.
    fn granted_id(&self, counted: u32) -> u32 {
        match counted
            .checked_sub(1)
            .and_then(|index| self.channels.get(index as usize))
        {
            Some(channel) => channel.id().0,
            None => counted,
        }
    }

    /// Makes the call of our client that led to this frame; the client sends the same bytes.
    async fn sends(&mut self, recorded: &RawFrame) {
        if recorded.path == b"/sys/new_channel" && recorded.channel == 0 {
            let opening = self.link.victim.asks_for_channel();
            self.opening.push_back(opening);
        } else {
            let path = std::str::from_utf8(&recorded.path).expect("Go clients send text");
            let channel = &self.channels[recorded.channel as usize - 1];
            let call = channel.request(path, Bytes::from(recorded.body.clone()));
            self.calls
                .entry(recorded.channel)
                .or_default()
                .push_back(spawn(call));
        }
        let expected = RawFrame {
            channel: self.granted_id(recorded.channel),
            ..recorded.clone()
        };
        let seen = self.link.peer.frame().await;
        assert!(
            seen == expected,
            "{}: our client sent {seen:?}, the recorded one {expected:?}",
            self.name
        );
    }

    /// Sends the server's reply; once the reply is complete, its caller has it.
    async fn receives(&mut self, recorded: &RawFrame) {
        let counted = recorded.channel;
        let frame = RawFrame {
            channel: self.granted_id(counted),
            ..recorded.clone()
        };
        self.link.peer.send_frame(&frame).await;
        let name = self.name;
        if counted == 0 && recorded.path == b"/sys/new_channel" {
            let opening = self.opening.pop_front().expect("a grant was asked for");
            let channel = soon(name, opening).await.expect("a grant is a channel");
            assert_eq!(
                channel.id().0,
                granted(recorded),
                "{name}: C1, the id is the granted one"
            );
            self.channels.push(channel);
            return;
        }
        // A reply that breaks the protocol completes nothing; its effect is seen at the
        // connection's end.
        match recorded.status {
            4 | 6 => self
                .partial
                .entry(counted)
                .or_default()
                .extend_from_slice(&recorded.body),
            5 | 7 if !recorded.body.is_empty() => {
                let mut whole = self.partial.remove(&counted).unwrap_or_default();
                let legal = (recorded.status == 7) != whole.is_empty();
                whole.extend_from_slice(&recorded.body);
                if let Some(call) = self.calls.get_mut(&counted).and_then(VecDeque::pop_front)
                    && legal
                {
                    let reply = soon(name, call)
                        .await
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(
                        reply == whole,
                        "{name}: {} is not {}",
                        brief(&reply),
                        brief(&whole)
                    );
                }
            }
            _ => {}
        }
    }

    /// The application ends, perhaps with dropped calls. Only a status 8 may follow.
    async fn closed_by_caller(mut self) {
        for call in self.calls.values().flatten() {
            call.abort();
        }
        drop(self.channels);
        within("closing the client", self.link.victim.client.close(GUARD)).await;
        let last = self.link.peer.closed().await;
        let orderly = last
            .iter()
            .all(|frame| frame.encode() == [8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(
            orderly && last.len() <= 1,
            "{}: the last frames were {last:?}",
            self.name
        );
    }

    /// The server closes: every waiting call fails at once, and the next call reconnects.
    async fn closed_by_server(mut self, reset: bool) {
        if reset {
            self.link.peer.reset().await;
        } else {
            self.link.peer.finish_sending();
        }
        self.every_call_fails().await;
    }

    /// The server sent something illegal: our client closes, which the server sees, and the rest is
    /// the same.
    async fn closed_by_our_client(mut self) {
        let last = self.link.peer.closed().await;
        assert!(
            last.is_empty(),
            "{}: a violation leads to closing, not by {last:?}",
            self.name
        );
        self.every_call_fails().await;
    }

    async fn every_call_fails(self) {
        for opening in self.opening {
            lost(self.name, opening).await;
        }
        for call in self.calls.into_values().flatten() {
            lost(self.name, call).await;
        }
        if let Some(channel) = self.channels.first() {
            lost(
                self.name,
                spawn(channel.request("/echo", "on the lost connection")),
            )
            .await;
        }
        self.link.serves_over_a_new_connection().await;
    }
}

/// Runs [`Step`]s.
struct Script {
    link: Link,
    last_grant: u32,
    last_reply: Option<RawFrame>,
    opening: Option<Pending<Channel>>,
    channels: Vec<Option<Channel>>,
    calls: Vec<Made>,
}

/// A call that the script has made.
struct Made {
    pending: Option<Pending<Bytes>>,
    channel: u32,
    path: &'static str,
    body: &'static str,
}

impl Script {
    async fn connect() -> Self {
        Self {
            link: Link::connect().await,
            last_grant: 0,
            last_reply: None,
            opening: None,
            channels: Vec::new(),
            calls: Vec::new(),
        }
    }

    async fn run(mut self, steps: &[Step]) {
        for &step in steps {
            // The step is part of the message of every failure in it.
            let before = format!("{step:?}");
            self.step(step, &before).await;
        }
    }

    async fn step(&mut self, step: Step, what: &str) {
        match step {
            Step::Open => {
                self.last_grant += 1;
                self.ask_for_channel(&RawFrame::grant(self.last_grant))
                    .await;
                self.take_channel(what).await;
            }
            Step::OpenGranted(body) => {
                self.ask_for_channel(&RawFrame::reply("/sys/new_channel", 0, body))
                    .await
            }
            Step::OpenWorks => self.take_channel(what).await,
            Step::OpenFails => {
                let opening = self.opening.take().expect("asked for before");
                assert!(
                    soon(what, opening).await.is_err(),
                    "there is no channel to be had"
                );
            }
            Step::OpenRejected(code) => {
                let mut opening = self.opening.take().expect("asked for before");
                // A call after a rejection may ask for a channel again.
                let outcome = loop {
                    tokio::select! {
                        outcome = &mut opening => break outcome.expect("no panic"),
                        asked = self.link.peer.frame() => assert_eq!(asked, RawFrame::new_channel()),
                    }
                    let rejection = self.last_reply.as_ref().expect("it was rejected before");
                    self.link.peer.send_frame(rejection).await;
                };
                let error = outcome.expect_err("the channel was rejected");
                match error.kind() {
                    CallErrorKind::ChannelRejected { code: got, message } => {
                        assert_eq!((*got, message.as_str()), (code, "channel create limited"));
                    }
                    other => panic!("got {other:?}"),
                }
                assert_eq!(error.execution(), Execution::NotSent);
            }
            Step::Call(channel, path, body) => {
                let call = spawn(self.channel(channel).request(path, body));
                let channel = self.channel(channel).id().0;
                self.calls.push(Made {
                    pending: Some(call),
                    channel,
                    path,
                    body,
                });
            }
            Step::PoolCall(path, body) => self.pool_call(path, body).await,
            Step::Seen(call) => {
                let seen = self.link.peer.frame().await;
                let Made {
                    channel,
                    path,
                    body,
                    ..
                } = &self.calls[call - 1];
                assert_eq!(seen, RawFrame::request(path, *channel, body), "{what}");
            }
            Step::Send(channel, path, body) => {
                self.link
                    .peer
                    .send_frame(&RawFrame::reply(path, channel, body))
                    .await;
            }
            Step::ReplyTo(call, body) => {
                let Made { channel, path, .. } = &self.calls[call - 1];
                self.link
                    .peer
                    .send_frame(&RawFrame::reply(path, *channel, body))
                    .await;
            }
            Step::Bytes(bytes) => self.link.peer.send(bytes).await,
            Step::Gets(call, body) => {
                let reply = soon(what, self.pending(call))
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(reply, body, "{what}");
            }
            Step::GetsNothing(call) => {
                let pending = self.calls[call - 1].pending.as_ref().expect("still wanted");
                assert!(
                    !pending.is_finished(),
                    "{what}: a reply that is not its own, or an error"
                );
            }
            Step::GiveUp(call) => {
                let pending = self.pending(call);
                pending.abort();
                assert!(
                    pending.await.is_err_and(|error| error.is_cancelled()),
                    "{what}: it was still waiting"
                );
            }
            Step::DropChannel(channel) => self.channels[channel - 1] = None,
            Step::Lost(call) => lost(what, self.pending(call)).await,
            Step::ClosesByItself => {
                let last = self.link.peer.closed().await;
                assert!(last.is_empty(), "{what}: not without {last:?}");
                self.link.serves_over_a_new_connection().await;
            }
            Step::RejectsPath(channel, path) => self.rejects_path(channel, path).await,
            Step::RejectsLongPath(channel, len) => {
                let path = format!("/echo?{}", "a".repeat(len - "/echo?".len()));
                self.rejects_path(channel, &path).await;
            }
            Step::TooLarge(channel, len) => {
                let body = generate::lin(1, len);
                let error = self.rejected(channel, "/echo", body.into()).await;
                assert!(
                    matches!(error.kind(), CallErrorKind::MessageTooLarge { size, .. } if *size == len),
                    "{error}"
                );
            }
        }
    }

    /// Our client asks for a channel, and the server sends `reply`.
    async fn ask_for_channel(&mut self, reply: &RawFrame) {
        self.opening = Some(self.link.victim.asks_for_channel());
        self.link.peer.replies_to_new_channel(reply).await;
        self.last_reply = Some(reply.clone());
    }

    async fn take_channel(&mut self, what: &str) {
        let opening = self.opening.take().expect("asked for before");
        let channel = soon(what, opening)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        self.channels.push(Some(channel));
    }

    /// A call through the client's own pool, which may ask for a channel first.
    async fn pool_call(&mut self, path: &'static str, body: &'static str) {
        let pending = self.link.victim.calls(path, body);
        let mut seen = self.link.peer.frame().await;
        if seen == RawFrame::new_channel() {
            self.last_grant += 1;
            self.link
                .peer
                .send_frame(&RawFrame::grant(self.last_grant))
                .await;
            seen = self.link.peer.frame().await;
        }
        assert_eq!(seen, RawFrame::request(path, seen.channel, body));
        self.calls.push(Made {
            pending: Some(pending),
            channel: seen.channel,
            path,
            body,
        });
    }

    fn channel(&self, number: usize) -> &Channel {
        self.channels[number - 1]
            .as_ref()
            .expect("the script still has this channel")
    }

    fn pending(&mut self, call: usize) -> Pending<Bytes> {
        self.calls[call - 1]
            .pending
            .take()
            .expect("a call has one outcome")
    }

    async fn rejects_path(&self, channel: usize, path: &str) {
        let error = self.rejected(channel, path, Bytes::from_static(b"x")).await;
        assert!(
            matches!(error.kind(), CallErrorKind::InvalidPath(_)),
            "{error}"
        );
    }

    /// The error of a call that must not be sent. The next frame shows that it was not.
    async fn rejected(&self, channel: usize, path: &str, body: Bytes) -> CallError {
        let call = spawn(self.channel(channel).request(path, body));
        let error = soon(path, call).await.expect_err("this cannot be sent");
        assert_eq!(error.execution(), Execution::NotSent, "{error}");
        error
    }
}
