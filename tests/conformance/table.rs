//! The treatment of each recording, on either side, and the reason where the recording is not
//! simply repeated.

use super::client::Step;
use super::server::UNKNOWN_PATH;

/// One recording.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) server: OnServer,
    pub(crate) client: OnClient,
}

/// The behaviour of our server when it gets the recorded client's bytes.
pub(crate) enum OnServer {
    /// The recorded replies and closes, byte for byte.
    AsRecorded,
    /// The same, with `max_connections(1)` as on the recorded server.
    AsRecordedWithOneConnection,
    /// The recorded replies are not a Go server's, or belong to paths that this server does not
    /// have: every grant is the next number, an echo returns its body, any other path gets code
    /// 102; each request gets one reply.
    Deduced(&'static str),
    /// These replies, and this end.
    Instead {
        why: &'static str,
        replies: Vec<Reply>,
        end: End,
    },
    /// One reply in several frames where the reference sends none.
    MergedReplies(&'static str),
}

/// A reply of one frame, status 5.
pub(crate) struct Reply {
    pub(crate) connection: usize,
    pub(crate) channel: u32,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// The state of the connection after the recorded client's last step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It serves a further request.
    LivesOn,
    /// The server closes by itself.
    Closes,
    /// The client has ended its direction; the server sends what is due, and closes.
    RepliesThenCloses,
}

/// The behaviour of our client when it gets the recorded server's bytes.
pub(crate) enum OnClient {
    /// It makes the recorded calls: its frames are the recorded ones, on the ids that were granted,
    /// and each call gets its recorded reply, or fails at once when the connection ends before
    /// that.
    Mirrors,
    /// The same without the client frames that our client cannot send.
    MirrorsWithout(&'static str),
    /// It closes the connection after the recorded bytes, fails every call at once, and serves the
    /// next call over a new connection. (The Go client closes too, but its callers wait for their
    /// timeouts.)
    Closes(&'static str),
    /// These steps instead of the recorded ones.
    Instead(&'static str, Vec<Step>),
}

impl OnServer {
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::AsRecorded | Self::AsRecordedWithOneConnection => None,
            Self::Deduced(why) | Self::MergedReplies(why) | Self::Instead { why, .. } => Some(why),
        }
    }
}

impl OnClient {
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Mirrors => None,
            Self::MirrorsWithout(why) | Self::Closes(why) | Self::Instead(why, _) => Some(why),
        }
    }
}

impl Reply {
    /// On a connection other than the first.
    fn of(self, connection: usize) -> Self {
        Self { connection, ..self }
    }
}

fn on(channel: u32, path: &str, body: &str) -> Reply {
    Reply {
        connection: 0,
        channel,
        path: path.to_owned(),
        body: body.to_owned(),
    }
}

fn grant(id: u32) -> Reply {
    on(
        0,
        "/sys/new_channel",
        &format!("{{\"code\":0,\"channel_id\":{id}}}"),
    )
}

fn deleted(channel: u32) -> Reply {
    on(channel, "/sys/delete_channel", r#"{"code":0}"#)
}

fn instead<const N: usize>(why: &'static str, replies: [Reply; N], end: End) -> OnServer {
    OnServer::Instead {
        why,
        replies: replies.into(),
        end,
    }
}

// Reasons that several files share.

const FAKE: &str = "the server was a script; what counts here is that ours understands this client";
const STATISTICS: &str = "statistics are refused by default, like unknown paths; `go_statistics.rs` compares them with this";
const PATH_LIMIT: &str =
    "longer than any Go sender's path: closed at byte 2050, without reading on (DEFENCES 2)";
const FORGED: &str =
    "D18: a decoded NUL must not reach the reply's path; code 102 under a label that is safe";
const ON_FIN: &str = "D22: on FIN the server finishes what it was asked, sends it, and closes";
const DELETION: &str =
    "S1, S5: a deletion gets its reply after earlier replies, and the id stays usable";
const COUNTS: &str =
    "S1, S2, S5: deletions get replies, ids stay usable, and a grant is always a new number";
const ONE_ANSWER: &str =
    "D2, D3: one reply per request, when it is complete, labelled with its first frame's path";
const ADAPTER: &str =
    "D32, D22: the gateway is not part of this version; on FIN the server sends what is due";

const ILLEGAL: &str =
    "our client cannot be made to send the frame that this is about; the rest is played";
const FAILS: &str =
    "as the Go client it closes, but D11: calls fail at once and the next call reconnects";
const NAMES: &str = "a reply names its request: one that names another is extra, and would be taken by the next call";
const NEVER_DELETES: &str =
    "C3: our client never sends delete_channel, so those frames are left out";
const WHOLE: &str = "a plain peer gets every request as one frame: its handlers run once per frame";

/// All files, in the order of their names.
#[rustfmt::skip]
pub(crate) fn files() -> Vec<File> {
    use OnServer::{AsRecorded, AsRecordedWithOneConnection, Deduced, MergedReplies};
    use OnClient::{Closes, Instead, Mirrors, MirrorsWithout};
    use End::{RepliesThenCloses, LivesOn};
    use Step::*;

    fn file(name: &'static str, server: OnServer, client: OnClient) -> File {
        File { name, server, client }
    }

    vec![
        file("bad_c2s_0_then_0", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_0_then_1", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_1_then_2", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_1_then_3", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_3_then_2", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_empty_path",
            instead("an empty label cannot be sent; code 102 under a label that can, and no other call is affected",
                [grant(1), on(1, "/", UNKNOWN_PATH)], LivesOn),
            MirrorsWithout(ILLEGAL)),
        file("bad_c2s_first_frame_2", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_first_frame_3", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_http_text",
            instead("G is not a status: a peer that speaks another protocol is rejected at its first byte (DEFENCES 6)",
                [grant(1)], End::Closes),
            MirrorsWithout(ILLEGAL)),
        file("bad_c2s_http_text_then_zeros", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_length_16mib_no_body",
            instead("D15: a body that does not come is waited for as long as progress_timeout says, not for ever",
                [grant(1)], End::Closes),
            MirrorsWithout(ILLEGAL)),
        file("bad_c2s_length_16mib_plus_1", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_length_max_u32", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_oversize_interrupts_pending", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_2048_unknown", AsRecorded, Mirrors),
        file("bad_c2s_path_2049_unknown", instead(PATH_LIMIT, [grant(1)], End::Closes), MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_5000_query", instead(PATH_LIMIT, [grant(1)], End::Closes), MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_5000_unknown", instead(PATH_LIMIT, [grant(1)], End::Closes), MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_524287_query", instead(PATH_LIMIT, [grant(1)], End::Closes), MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_524288_query", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_absolute_url", AsRecorded, Mirrors),
        file("bad_c2s_path_bad_escape", AsRecorded, Mirrors),
        file("bad_c2s_path_control_char", AsRecorded, Mirrors),
        file("bad_c2s_path_double_slash", AsRecorded, Mirrors),
        file("bad_c2s_path_escaped_nul",
            instead(FORGED, [grant(1), on(1, "/", UNKNOWN_PATH), on(1, "/echo", "next")], LivesOn),
            Instead("the recorded reply is corrupt from the decoded NUL on, so a client can only give the connection up",
                vec![Open, Call(1, "/echo", "abc"), Seen(1), Bytes(b"\x05/a\0b\0\0\0\0\x01\0\0\0\x25"), ClosesByItself,
                    Lost(1)])),
        file("bad_c2s_path_invalid_utf8", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_path_no_slash", AsRecorded, Mirrors),
        file("bad_c2s_path_parses_to_empty",
            instead("an empty label cannot be sent; code 102 under a label that can, and no other call is affected",
                [grant(1), on(1, "/", UNKNOWN_PATH)], LivesOn),
            Mirrors),
        file("bad_c2s_path_without_nul", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_server_status_4", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_server_status_5", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_server_status_6", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_server_status_7", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_status_255", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_status_9", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_tls_client_hello", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_truncated_header_fin", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_unknown_channel", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_unknown_channel_header_only", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("bad_c2s_zero_length", AsRecorded, MirrorsWithout(ILLEGAL)),

        file("bad_s2c_client_status_1", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_delete_path", Deduced(FAKE),
            Instead(NAMES,
                vec![Open, Open, Call(1, "/deletepath", "x"), Seen(1), Send(1, "/sys/delete_channel", "x"), ClosesByItself, Lost(1)])),
        file("bad_s2c_drip", Deduced(FAKE), Mirrors),
        file("bad_s2c_empty_path", Deduced(FAKE),
            Instead(NAMES,
                vec![Open, Open, Call(1, "/emptypath", "x"), Seen(1), Send(1, "", "x"), ClosesByItself, Lost(1)])),
        file("bad_s2c_first_6", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_half_then_close", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_never", Deduced(FAKE),
            Instead("a caller that gave up keeps its position in the channel's order, and other channels are untouched; a reply \
                     that skips the position has lost the order",
                vec![Open, Open, Call(1, "/never", "x"), Seen(1), GiveUp(1),
                    Call(1, "/echo", "same channel afterwards"), Seen(2),
                    Call(2, "/echo", "other channel afterwards"), Seen(3),
                    Send(2, "/echo", "other channel afterwards"), Gets(3, "other channel afterwards"),
                    GetsNothing(2), Send(1, "/echo", "same channel afterwards"), ClosesByItself, Lost(2)])),
        file("bad_s2c_other_path", Deduced(FAKE),
            Instead(NAMES,
                vec![Open, Open, Call(1, "/otherpath", "x"), Seen(1), Send(1, "/somewhere/else", "x"), ClosesByItself, Lost(1)])),
        file("bad_s2c_oversize", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_reset", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_seq_4_4", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_seq_4_5", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_seq_5_7", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_status_9", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_unknown_channel", Deduced(FAKE), Closes(FAILS)),
        file("bad_s2c_unsolicited", Deduced(FAKE),
            Instead("an unsolicited reply leaves the pairing of replies in doubt: section 17 says to close",
                vec![Open, Open, Call(1, "/extra", "x"), Seen(1), Send(1, "/extra", "x"), Gets(1, "x"),
                    Send(1, "/extra", "unsolicited"), ClosesByItself])),
        file("bad_s2c_unsolicited_channel_0", Deduced(FAKE),
            Instead("an unsolicited reply leaves the pairing of replies in doubt: section 17 says to close",
                vec![Open, Open, Call(1, "/extra0", "x"), Seen(1), Send(0, "/x", "unsolicited"), ClosesByItself,
                    Lost(1)])),
        file("bad_s2c_zero_length", Deduced(FAKE), Closes(FAILS)),

        file("channel_limit_not_enforced", AsRecorded, Mirrors),
        file("chunked_request_023_echo",
            instead(ONE_ANSWER, [grant(1), on(1, "/echo", "first,second,third"), on(1, "/echo", "plain again")], LivesOn),
            Instead(WHOLE, vec![Open, Call(1, "/echo?part=1", "first,second,third"), Seen(1),
                Send(1, "/echo", "first,second,third"), Gets(1, "first,second,third"),
                Call(1, "/echo", "plain again"), Seen(2), Send(1, "/echo", "plain again"), Gets(2, "plain again")])),
        file("chunked_request_023_echo_benchmark",
            instead(ONE_ANSWER, [grant(1), on(1, "/echo_benchmark", "first,second,third")], LivesOn),
            Instead(WHOLE, vec![Open, Call(1, "/echo_benchmark", "first,second,third"), Seen(1),
                Send(1, "/echo_benchmark", "first,second,third"), Gets(1, "first,second,third")])),
        file("chunked_request_17mib", AsRecorded,
            Instead("over 16 MiB a request needs several frames, which a plain peer is not sent: rejected, nothing sent",
                vec![Open, TooLarge(1, (17 << 20) as usize), Call(1, "/digest", "less"), Seen(1),
                    Send(1, "/digest", "answer"), Gets(1, "answer")])),
        file("chunked_request_interleaved", AsRecorded,
            Instead(WHOLE, vec![Open, Open, Call(1, "/echo", "A1 A2"), Call(2, "/echo", "B"), Seen(1), Seen(2),
                Send(2, "/echo", "B"), Gets(2, "B"), Send(1, "/echo", "A1 A2"), Gets(1, "A1 A2")])),
        file("chunked_request_one_answer",
            instead(ONE_ANSWER,
                [grant(1), on(1, "/echo", "abcd"), on(1, "/progress", r#"{"done":true,"len":6}"#)], LivesOn),
            Instead(WHOLE, vec![Open, Call(1, "/echo?x=1", "abcd"), Seen(1), Send(1, "/echo?x=1", "abcd"),
                Gets(1, "abcd"), Call(1, "/progress", "abcdef"), Seen(2),
                Send(1, "/progress", r#"{"done":true,"len":6}"#), Gets(2, r#"{"done":true,"len":6}"#)])),
        file("chunked_request_path_changes",
            instead(ONE_ANSWER, [grant(1), on(1, "/echo", "ab"), on(1, "/nope", UNKNOWN_PATH)], LivesOn),
            Instead(WHOLE, vec![Open, Call(1, "/echo?first=1", "ab"), Seen(1), Send(1, "/echo", "ab"),
                Gets(1, "ab")])),
        file("chunked_response_24mib", AsRecorded, Mirrors),
        file("chunked_response_467", AsRecorded, Mirrors),
        file("chunked_response_47", AsRecorded, Mirrors),
        file("close_channel_with_pending",
            instead(ON_FIN, [grant(1), grant(2), on(1, "/slow", "pending on 1"), on(2, "/slow", "innocent request on 2")],
                RepliesThenCloses),
            Instead("D6, C4: the reply for a channel that was given up is discarded, the other channel gets its own",
                vec![Open, Open, Call(1, "/slow?ms=300", "pending on 1"), Call(2, "/slow?ms=600", "innocent request on 2"),
                    Seen(1), Seen(2), GiveUp(1), DropChannel(1), Send(1, "/slow", "pending on 1"),
                    Send(2, "/slow", "innocent request on 2"), Gets(2, "innocent request on 2")])),
        file("connection_limit", AsRecordedWithOneConnection, Mirrors),
        file("delete_channel",
            instead(DELETION, [grant(1), grant(2), on(1, "/echo", "before"), deleted(1),
                on(2, "/echo", "other channel still works"), on(1, "/echo", "deleted channel used again")], LivesOn),
            MirrorsWithout(NEVER_DELETES)),
        file("delete_channel_raw",
            instead(COUNTS, [grant(1), grant(2), deleted(1), grant(3), grant(4), on(1, "/echo", "on the re-used id")],
                LivesOn),
            Instead("C2: our client did not delete channel 1, so a second grant of it means that the server lost count",
                vec![Open, Open, OpenGranted(r#"{"code":0,"channel_id":1}"#), ClosesByItself])),
        file("delete_channel_zero",
            instead("S2, S6: channel 0 is kept, its deletion gets a reply, and no grant is 0",
                [grant(1), deleted(0), on(1, "/sys/new_channel", r#"{"code":0,"channel_id":2}"#),
                    on(1, "/echo", "channel 1 lives"), grant(3)], LivesOn),
            Instead("our client neither deletes channel 0 nor opens channels elsewhere; a grant without an id is useless",
                vec![Open, OpenGranted(r#"{"code":0}"#), OpenFails])),
        file("delete_then_reopen_mismatch",
            instead(COUNTS, [grant(1), grant(2), grant(3), grant(4), grant(5), grant(6), deleted(1), deleted(2),
                deleted(3), deleted(4), deleted(5), deleted(6), grant(7), on(5, "/echo", "reopened")], LivesOn),
            Instead("C1, C3: nothing is deleted, and every channel is used under the id of its own grant",
                vec![Open, Open, Open, Open, Open, Open, OpenGranted(r#"{"code":0,"channel_id":7}"#), OpenWorks,
                    Call(7, "/echo", "reopened"), Seen(1), Send(7, "/echo", "reopened"), Gets(1, "reopened")])),
        file("echo_15mib", AsRecorded, Mirrors),
        file("echo_16mib", AsRecorded, Mirrors),
        file("echo_1mib", AsRecorded, Mirrors),
        file("echo_client_tool", AsRecorded, Mirrors),
        file("empty_response", AsRecorded, Mirrors),
        file("file_download", AsRecorded, Mirrors),
        file("file_download_missing",
            OnServer::Instead {
                why: "D20, D35: a handler's error says what the handler chose to say, here without the file's name",
                replies: std::iter::once(grant(1))
                    .chain((0..11).map(|_| on(1, "/download_file", r#"{"code":-1,"message":"handler fail:no such file"}"#)))
                    .collect(),
                end: LivesOn,
            },
            Mirrors),
        file("file_upload", AsRecorded, Mirrors),
        file("go_client_ignores_granted_id", Deduced(FAKE), Mirrors),
        file("half_close_loses_answer",
            instead(ON_FIN, [grant(1), on(1, "/slow", "pending")], RepliesThenCloses),
            Mirrors),
        file("handler_error", AsRecorded, Mirrors),
        file("handler_panic", AsRecorded, Mirrors),
        file("http_adapter", AsRecorded, Mirrors),
        file("http_adapter_big_header",
            instead(ADAPTER, [grant(1), on(1, "/echo", "warm up"), on(1, "/slow", "innocent"),
                grant(1).of(1), on(1, "/echo", "after").of(1)], RepliesThenCloses),
            Mirrors),
        file("http_adapter_response_splitting",
            instead(FORGED, [grant(1), on(1, "/slow", "slow one"), on(1, "/", UNKNOWN_PATH), on(1, "/echo", "victim data")],
                RepliesThenCloses),
            Instead("the attack is a path with %00 that our client rejects; the other calls get their own replies",
                vec![Open, Call(1, "/slow?ms=400", "slow one"), RejectsPath(1, "/x%00%00%00%00%01"),
                    Call(1, "/echo", "victim data"), Seen(1), Seen(2), Send(1, "/slow", "slow one"),
                    Send(1, "/echo", "victim data"), Gets(1, "slow one"), Gets(2, "victim data")])),
        file("http_adapter_timeout",
            instead(ADAPTER, [grant(1), on(1, "/slow", "x"), grant(1).of(1), on(1, "/echo", "after").of(1)],
                RepliesThenCloses),
            Mirrors),
        file("iq_tool", AsRecorded, Mirrors),
        file("late_response", AsRecorded,
            Instead("the caller's timeout is the test's own; the late reply is discarded, the next is not affected",
                vec![Open, Call(1, "/slow?ms=300", "late"), Seen(1), GiveUp(1), Call(1, "/echo", "next"), Seen(2),
                    Send(1, "/slow", "late"), Send(1, "/echo", "next"), Gets(2, "next")])),
        file("lb_client", AsRecorded, Mirrors),
        file("lb_timeout_kills_others",
            instead(ON_FIN, [grant(1), on(1, "/echo", "warm"), on(1, "/slow", "victim"), on(1, "/echo", "impatient")],
                RepliesThenCloses),
            Instead("D31a: a caller that gives up affects no other call",
                vec![Open, Call(1, "/echo", "warm"), Seen(1), Send(1, "/echo", "warm"), Gets(1, "warm"),
                    Call(1, "/slow?ms=900", "victim"), Call(1, "/echo", "impatient"), Seen(2), Seen(3), GiveUp(3),
                    Send(1, "/slow", "victim"), Send(1, "/echo", "impatient"), Gets(2, "victim")])),
        file("lost_response_poisons_channel", Deduced(FAKE),
            Instead("D8: the caller whose reply never comes keeps its channel, so the others' replies stay their own",
                vec![PoolCall("/never", "unanswered"), GiveUp(1), PoolCall("/echo", "r1"), ReplyTo(2, "r1"),
                    Gets(2, "r1"), PoolCall("/echo", "overlapping 0"), PoolCall("/echo", "overlapping 1"),
                    PoolCall("/echo", "overlapping 2"), ReplyTo(4, "overlapping 1"), ReplyTo(5, "overlapping 2"),
                    ReplyTo(3, "overlapping 0"), Gets(3, "overlapping 0"), Gets(4, "overlapping 1"),
                    Gets(5, "overlapping 2")])),
        file("new_channel_chunked",
            instead("D2: one request is one channel and one reply, however many frames it takes", [grant(1)], LivesOn),
            Instead("our client asks for a channel with one frame, and an unsolicited grant means a lost count",
                vec![Open, Bytes(b"\x05/sys/new_channel\0\0\0\0\0\0\0\0\x19{\"code\":0,\"channel_id\":2}"),
                    ClosesByItself])),
        file("new_channel_extra_fields", Deduced(FAKE), Mirrors),
        file("new_channel_refused", Deduced(FAKE),
            Instead("the recorded client ends after the rejection; ours reports it with code and text and can go on",
                vec![OpenGranted(r#"{"code":106,"message":"channel create limited"}"#), OpenRejected(106)])),
        file("new_channel_without_id", Deduced(FAKE),
            Instead("a grant without an id is malformed; the caller must not wait for a channel that cannot come",
                vec![OpenGranted(r#"{"code":0}"#), OpenFails])),
        file("nil_body", AsRecorded, Mirrors),
        file("open_channel", AsRecorded, Mirrors),
        file("path_2048", AsRecorded, Mirrors),
        file("path_2049", AsRecorded,
            Instead("a path that cannot be sent is the caller's error alone: the connection goes on",
                vec![Open, RejectsLongPath(1, 2049), Call(1, "/echo", "after"), Seen(1), Send(1, "/echo", "after"),
                    Gets(1, "after")])),
        file("path_nul_response_splitting",
            instead(FORGED, [grant(1), on(1, "/slow", "first"), on(1, "/", UNKNOWN_PATH), on(1, "/echo", "victim data")],
                RepliesThenCloses),
            Instead("the attack is a path with %00 that our client rejects; the other calls get their own replies",
                vec![Open, Call(1, "/slow?ms=150", "first"), RejectsPath(1, "/x%00%00%00%00%01"),
                    Call(1, "/echo", "victim data"), Seen(1), Seen(2), Send(1, "/slow", "first"),
                    Send(1, "/echo", "victim data"), Gets(1, "first"), Gets(2, "victim data")])),
        file("pipelined_one_channel", AsRecorded, Mirrors),
        file("pool_three_connections", AsRecorded, Mirrors),
        file("query_params", AsRecorded, Mirrors),
        file("request_over_16mib", AsRecorded,
            Instead("D1: rejected with the reason, nothing is sent, and the connection goes on",
                vec![Open, TooLarge(1, (16 << 20) + 1), Call(1, "/echo", "after"), Seen(1), Send(1, "/echo", "after"),
                    Gets(1, "after")])),
        file("response_over_16mib", MergedReplies("D1: a reply over 16 MiB is sent as statuses 4, 6, .., 7"), Mirrors),
        file("reuse_id_wrong_answer", AsRecorded,
            Instead("D7, C2: our client never re-uses an id by itself, so an old reply cannot reach a new caller",
                vec![Open, Call(1, "/slow?ms=300", "OLD"), Seen(1), GiveUp(1), DropChannel(1), Open,
                    Call(2, "/slow?ms=10", "NEW"), Seen(2), Send(1, "/slow", "OLD"), Call(2, "/echo", "NEWER"), Seen(3),
                    Send(2, "/slow", "NEW"), Send(2, "/echo", "NEWER"), Gets(2, "NEW"), Gets(3, "NEWER")])),
        file("server_closes_with_pending", Deduced(FAKE), Closes(FAILS)),
        file("status8_after_request",
            instead("D22: status 8 ends the requests, not the replies that are due", [grant(1), on(1, "/slow", "pending")],
                RepliesThenCloses),
            MirrorsWithout("status 8 is the last thing our client sends; a server that sends no reply after it is allowed")),
        file("status8_from_client", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("status8_from_server", Deduced(FAKE), Closes(FAILS)),
        file("status8_from_server_one_byte", Deduced(FAKE), Closes(FAILS)),
        file("status8_one_byte", AsRecorded, MirrorsWithout(ILLEGAL)),
        file("sys_connection_statis", Deduced(STATISTICS), Mirrors),
        file("sys_path_count", Deduced(STATISTICS), Mirrors),
        file("sys_path_measure", Deduced(STATISTICS), Mirrors),
        file("sys_server_count", Deduced(STATISTICS), Mirrors),
        file("sys_server_measure", Deduced(STATISTICS), Mirrors),
        file("sys_statis", Deduced(STATISTICS), Mirrors),
        file("two_channels_interleaved", AsRecorded, Mirrors),
        file("two_channels_slow_fast", AsRecorded, Mirrors),
        file("unary_echo", AsRecorded, Mirrors),
        file("unknown_path", AsRecorded, Mirrors),
    ]
}
