//! The client's side of a recording, played against our server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iip_core::Limits;

use super::go_server::GoServer;
use super::table::{End, OnServer, Reply};
use crate::common::frame::RawFrame;
use crate::common::peer::Peer;
use crate::common::transcript::{Direction, Transcript, What};

/// The frames that arrive on one channel of one connection, in order. Between channels there is no
/// order.
type PerChannel = BTreeMap<(usize, u32), Vec<RawFrame>>;

pub(crate) const UNKNOWN_PATH: &str = r#"{"code":102,"message":"handle error"}"#;

/// Plays the client's side of `transcript` and fails unless our server behaves as `how` says.
pub(crate) async fn plays(transcript: Arc<Transcript>, how: OnServer) {
    match how {
        OnServer::AsRecorded => as_recorded(&transcript, GoServer::start().await).await,
        OnServer::AsRecordedWithOneConnection => {
            as_recorded(
                &transcript,
                GoServer::configured(|config| config.max_connections(1)).await,
            )
            .await;
        }
        OnServer::Deduced(_) => {
            let expected = deduced(&transcript);
            instead(&transcript, expected, End::LivesOn, Limits::default()).await;
        }
        OnServer::Instead { replies, end, .. } => {
            // Only for connections that a timeout ends: others must end by themselves, long before
            // the default timeouts.
            let limits = match end {
                End::Closes => Limits::default().progress_timeout(Duration::from_millis(200)),
                End::LivesOn | End::RepliesThenCloses => Limits::default(),
            };
            instead(&transcript, listed(replies), end, limits).await;
        }
        OnServer::MergedReplies(_) => merged(&transcript).await,
    }
}

/// Checks that every recorded reply, and nothing else, comes byte for byte before the client's next
/// step.
async fn as_recorded(transcript: &Transcript, server: GoServer) {
    let expected = recorded(transcript);
    let mut play = Play::new(transcript, server);
    let mut due: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    for step in &transcript.steps {
        let connection = step.connection;
        match &step.what {
            What::Connected => play.connect(connection).await,
            What::Frame(Direction::ClientToServer, recorded) => {
                play.send(connection, &recorded.bytes).await
            }
            What::Cut(Direction::ClientToServer, bytes) => play.send(connection, bytes).await,
            What::Frame(Direction::ServerToClient, recorded) => {
                let frame = &recorded.frame;
                play.let_go(frame);
                let due = due.entry((connection, frame.channel)).or_default();
                *due += 1;
                play.wait_for(connection, frame.channel, *due).await;
            }
            What::ClientClosed { first: true } => {
                // From here on the recorded client did not read; ours does, so every due reply must
                // come.
                play.peer(connection).finish_sending();
                play.collect_to_the_end(connection).await;
            }
            What::ServerClosed { first: true, .. } => play.collect_to_the_end(connection).await,
            _ => {}
        }
    }
    play.finish(&expected).await;
}

/// The same steps of the client; the replies and the end are not the recorded ones.
async fn instead(transcript: &Transcript, mut expected: PerChannel, end: End, limits: Limits) {
    let mut play = Play::new(transcript, GoServer::with_limits(limits).await);
    for step in &transcript.steps {
        match &step.what {
            What::Connected => play.connect(step.connection).await,
            What::Frame(Direction::ClientToServer, recorded) => {
                play.send(step.connection, &recorded.bytes).await
            }
            What::Cut(Direction::ClientToServer, bytes) => play.send(step.connection, bytes).await,
            What::ClientClosed { first: true } if end == End::RepliesThenCloses => {
                play.peer(step.connection).finish_sending();
            }
            _ => {}
        }
    }
    // The slow handlers of the recording that the reference forgot end only now: after the FIN and
    // the status 8.
    play.server.slow.open_all();
    for connection in 0..transcript.connections() {
        match end {
            End::LivesOn => {
                let alive = RawFrame::request("/echo", 0, "still alive");
                play.send(connection, &alive.encode()).await;
                expected
                    .entry((connection, 0))
                    .or_default()
                    .push(RawFrame::reply("/echo", 0, "still alive"));
                let due = expected[&(connection, 0)].len();
                play.wait_for(connection, 0, due).await;
                play.peer(connection).finish_sending();
            }
            End::RepliesThenCloses | End::Closes => {}
        }
        play.collect_to_the_end(connection).await;
    }
    play.finish(&expected).await;
}

/// Replies of several frames: checked are the legal order of statuses, and the data as a whole.
async fn merged(transcript: &Transcript) {
    let mut play = Play::new(transcript, GoServer::start().await);
    for step in &transcript.steps {
        match &step.what {
            What::Connected => play.connect(step.connection).await,
            What::Frame(Direction::ClientToServer, recorded) => {
                play.send(step.connection, &recorded.bytes).await
            }
            _ => {}
        }
    }
    for connection in 0..transcript.connections() {
        play.peer(connection).finish_sending();
        play.collect_to_the_end(connection).await;
        let frames = play
            .received
            .remove(&(connection, 1))
            .expect("replies on channel 1");
        let statuses: Vec<u8> = frames.iter().map(|frame| frame.status).collect();
        let (first, rest) = statuses.split_first().expect("at least one frame");
        let (last, between) = rest
            .split_last()
            .expect("a message over 16 MiB takes two frames");
        assert_eq!((*first, *last), (4, 7), "{statuses:?}");
        assert!(between.iter().all(|&status| status == 6), "{statuses:?}");
        assert!(
            frames
                .iter()
                .all(|frame| frame.path == b"/big" && frame.body.len() <= 16 << 20)
        );
        let body: Vec<u8> = frames.into_iter().flat_map(|frame| frame.body).collect();
        assert!(
            body == crate::common::generate::lin(0, (16 << 20) + 1),
            "the data is what the handler gave"
        );
    }
    play.received.clear();
    play.finish(&PerChannel::new()).await;
}

/// The recorded replies. A scripted server wrote the fields of a grant in another order than Go
/// servers do.
fn recorded(transcript: &Transcript) -> PerChannel {
    let mut expected = PerChannel::new();
    for connection in 0..transcript.connections() {
        for recorded in transcript.frames_of(connection, Direction::ServerToClient) {
            let mut frame = recorded.frame.clone();
            if transcript.fake_server && frame.path == b"/sys/new_channel" {
                frame = RawFrame::grant(crate::common::peer::granted(&frame));
            }
            expected
                .entry((connection, frame.channel))
                .or_default()
                .push(frame);
        }
    }
    expected
}

/// The replies of a table entry.
fn listed(replies: Vec<Reply>) -> PerChannel {
    let mut expected = PerChannel::new();
    for Reply {
        connection,
        channel,
        path,
        body,
    } in replies
    {
        expected
            .entry((connection, channel))
            .or_default()
            .push(RawFrame::reply(path, channel, body));
    }
    expected
}

/// The replies of our server where the recorded ones came from a script or are statistics: a number
/// per grant, the body of an echo, and code 102 for any unknown path.
fn deduced(transcript: &Transcript) -> PerChannel {
    let mut expected = PerChannel::new();
    for connection in 0..transcript.connections() {
        let mut granted = 0;
        for recorded in transcript.frames_of(connection, Direction::ClientToServer) {
            let RawFrame {
                path,
                channel,
                body,
                ..
            } = &recorded.frame;
            let label = path.split(|&byte| byte == b'?').next().unwrap_or_default();
            let reply = match label {
                b"/sys/new_channel" => {
                    granted += 1;
                    RawFrame::grant(granted)
                }
                b"/echo" | b"/echo_benchmark" => RawFrame::reply(label, *channel, body),
                _ => RawFrame::reply(label, *channel, UNKNOWN_PATH),
            };
            expected
                .entry((connection, *channel))
                .or_default()
                .push(reply);
        }
    }
    expected
}

/// The connections of one recording to a separate server.
struct Play<'a> {
    transcript: &'a Transcript,
    server: GoServer,
    peers: BTreeMap<usize, Peer>,
    received: PerChannel,
}

impl<'a> Play<'a> {
    fn new(transcript: &'a Transcript, server: GoServer) -> Self {
        Self {
            transcript,
            server,
            peers: BTreeMap::new(),
            received: PerChannel::new(),
        }
    }

    async fn connect(&mut self, connection: usize) {
        let peer = Peer::connect(self.server.addr).await;
        self.peers.insert(connection, peer);
    }

    fn peer(&mut self, connection: usize) -> &mut Peer {
        self.peers
            .get_mut(&connection)
            .expect("a connection sends after it was made")
    }

    async fn send(&mut self, connection: usize, bytes: &[u8]) {
        self.peer(connection).send(bytes).await;
    }

    /// Releases the handler when the recording shows the reply of a slow one.
    fn let_go(&self, reply: &RawFrame) {
        if reply.path == b"/slow" {
            self.server.slow.open(&reply.body);
        }
    }

    /// Reads until `due` frames have come on a channel.
    async fn wait_for(&mut self, connection: usize, channel: u32, due: usize) {
        while self
            .received
            .get(&(connection, channel))
            .map_or(0, Vec::len)
            < due
        {
            let frame = self.peer(connection).frame().await;
            self.received
                .entry((connection, frame.channel))
                .or_default()
                .push(frame);
        }
    }

    /// Reads until our server closes.
    async fn collect_to_the_end(&mut self, connection: usize) {
        for frame in self.peer(connection).closed().await {
            self.received
                .entry((connection, frame.channel))
                .or_default()
                .push(frame);
        }
    }

    async fn finish(mut self, expected: &PerChannel) {
        for connection in self.peers.keys().copied().collect::<Vec<_>>() {
            // Most recordings are at their end here; one was cut while both sides were busy.
            self.peer(connection).finish_sending();
            self.collect_to_the_end(connection).await;
        }
        let name = &self.transcript.name;
        for key in expected.keys().chain(self.received.keys()) {
            let (expected, received) = (expected.get(key), self.received.get(key));
            assert!(
                expected == received,
                "{name}, connection and channel {key:?}\nexpected {expected:#?}\nreceived {received:#?}"
            );
        }
        self.server.stop().await;
    }
}
