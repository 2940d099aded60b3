//! Files on the paths of Go's file servers, compared with the recordings of Go's programs.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iip_files::go::{self, GoFileClient};
use iip_files::{Folder, Phase, TransferOptions};
use iip_rpc::{Client, Code, Server, Status};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::common::frame::RawFrame;
use crate::common::generate::lin;
use crate::common::peer::{Peer, accepted, listener};
use crate::common::transcript::{Direction, Step, Transcript, What};
use crate::common::{MIB, spawn, within};

const UNKNOWN_PATH: &str = r#"{"code":102,"message":"handle error"}"#;

/// A folder that is served.
struct Served {
    folder: TempDir,
    server: Server,
}

impl Served {
    async fn new() -> Self {
        Self::with(|folder| folder.writable(true)).await
    }

    async fn with(change: impl FnOnce(Folder) -> Folder) -> Self {
        let folder = TempDir::new().unwrap();
        let served = change(Folder::open(folder.path()).unwrap());
        let service = go::service(served, "/srv/files/example/");
        let server = Server::builder().service(service);
        let server = server.bind("127.0.0.1:0").await.unwrap();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The names in the folder, hidden ones too.
    fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    async fn client(&self) -> GoFileClient {
        GoFileClient::new(Client::connect(self.server.target()).await.unwrap())
    }

    async fn peer(&self) -> Peer {
        let addr = self.server.raw().local_addr().unwrap();
        let mut peer = Peer::connect(addr).await;
        assert_eq!(peer.open_channel().await, 1);
        peer
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Plays the recorded client; our server has to send what the recorded one did.
async fn plays_client(recording: &str, served: &Served) {
    let mut peer = Peer::connect(served.server.raw().local_addr().unwrap()).await;
    for step in Transcript::load(recording).steps {
        match step.what {
            What::Frame(Direction::ClientToServer, sent) => peer.send(&sent.bytes).await,
            What::Frame(Direction::ServerToClient, expected) => {
                assert_eq!(peer.frame().await, expected.frame, "{recording}");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn recorded_clients_get_the_recorded_replies() {
    let served = Served::new().await;
    fs::write(served.path("dl.bin"), lin(21, 25_000)).unwrap();
    plays_client("file_download", &served).await;
    plays_client("file_download_missing", &served).await;
    plays_client("file_upload", &served).await;
    assert_eq!(fs::read(served.path("up.bin")).unwrap(), lin(22, 30_000));
    assert_eq!(served.names(), ["dl.bin", "up.bin"]);
}

/// Returns a request with the number 1 for its transfer, as in the recordings.
fn as_first_task(mut frame: RawFrame) -> RawFrame {
    let begin = br#"{"TaskId":"#;
    let Some(at) = frame
        .body
        .windows(begin.len())
        .position(|window| window == begin)
    else {
        return frame;
    };
    let start = at + begin.len();
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let digits = frame.body[start..].iter().take_while(is_digit).count();
    frame.body.splice(start..start + digits, *b"1");
    if let Some(length) = frame.body[..at].first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) - digits as u32 + 1;
        frame.body[..4].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

/// A server of one client, which plays its replies.
struct Script {
    listener: TcpListener,
}

impl Script {
    /// Returns it, and the client that will connect to it.
    async fn new() -> (Self, GoFileClient) {
        let (listener, addr) = listener().await;
        let client = Client::builder().connect_lazy(addr.to_string()).unwrap();
        (Self { listener }, GoFileClient::new(client))
    }

    async fn accepts(&self) -> Peer {
        let mut peer = Peer::over(accepted(&self.listener).await);
        // Servers of Go do not know this path.
        assert_eq!(peer.frame().await.path_text(), "/sys/hello");
        let unknown = RawFrame::reply("/sys/hello", 0, UNKNOWN_PATH);
        peer.send_frame(&unknown).await;
        peer
    }

    /// Plays the recorded server; our client has to send what the recorded one did, except for the
    /// number of its transfer.
    async fn plays(self, recording: &str, steps: impl Iterator<Item = Step>) -> Peer {
        let mut peer = self.accepts().await;
        for step in steps {
            match step.what {
                What::Frame(Direction::ClientToServer, expected) => {
                    let frame = as_first_task(peer.frame().await);
                    assert_eq!(frame, expected.frame, "{recording}");
                }
                What::Frame(Direction::ServerToClient, sent) => peer.send(&sent.bytes).await,
                _ => {}
            }
        }
        peer
    }

    /// Replies to requests with these bodies.
    async fn replies(self, bodies: Vec<Vec<u8>>) -> Peer {
        let mut peer = self.accepts().await;
        peer.grants(1).await;
        for body in bodies {
            let request = peer.frame().await;
            let reply = RawFrame::reply(&request.path, request.channel, body);
            peer.send_frame(&reply).await;
        }
        peer
    }
}

#[tokio::test]
async fn recorded_servers_get_the_recorded_requests() {
    let folder = TempDir::new().unwrap();
    let (script, client) = Script::new().await;
    let steps = Transcript::load("file_download").steps.into_iter();
    let played = spawn(script.plays("file_download", steps));
    let local = folder.path().join("dl.bin");
    let got = client.get("/srv/files/example/dl.bin", &local);
    let report = within("a download", got).await.unwrap();
    within("the recording", played).await.unwrap();
    assert_eq!(
        (report.files, report.bytes, report.transferred),
        (1, 25_000, 25_000)
    );
    assert_eq!(fs::read(&local).unwrap(), lin(21, 25_000));

    let (script, client) = Script::new().await;
    let steps = Transcript::load("file_upload").steps.into_iter();
    let played = spawn(script.plays("file_upload", steps));
    let local = folder.path().join("up.bin");
    fs::write(&local, lin(22, 30_000)).unwrap();
    let put = client.put(&local, "/srv/files/example/up.bin");
    let report = within("an upload", put).await.unwrap();
    within("the recording", played).await.unwrap();
    assert_eq!(
        (report.files, report.bytes, report.transferred),
        (1, 30_000, 30_000)
    );
    assert_eq!(names(folder.path()), ["dl.bin", "up.bin"]);
}

#[tokio::test]
async fn a_missing_file_is_an_error_and_not_its_content() {
    let folder = TempDir::new().unwrap();
    let (script, client) = Script::new().await;
    // The recorded client has taken the error for data, and asked for more.
    let steps = Transcript::load("file_download_missing").steps.into_iter();
    let played = spawn(script.plays("file_download_missing", steps.take(5)));
    let got = client.get("/no/such/file", folder.path().join("file"));
    let status = within("a failure", got).await.unwrap_err();
    let text = "handler fail:open /no/such/file: no such file or directory";
    assert_eq!((status.code(), status.message()), (Code::Unknown, text));
    drop(client);
    let mut peer = within("the recording", played).await.unwrap();
    let more = within("the end", peer.closed()).await;
    assert!(more.iter().all(|frame| frame.path.is_empty()), "{more:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn files_of_every_size_make_the_round_trip() {
    let (served, here) = (Served::new().await, TempDir::new().unwrap());
    let client = served.client().await;
    for size in [0, 1, 10_236, 10_237, MIB, 3 * MIB + 5] {
        let (sent, got) = (here.path().join("sent"), here.path().join("got"));
        fs::write(&sent, lin(7, size)).unwrap();
        client.put(&sent, "a/file").await.unwrap();
        assert!(
            fs::read(served.path("a/file")).unwrap() == lin(7, size),
            "{size}"
        );
        let report = client.get("/a/file", &got).await.unwrap();
        assert_eq!(report.transferred, size as u64);
        assert!(fs::read(&got).unwrap() == lin(7, size), "{size}");
    }
    assert_eq!(names(&served.path("a")), ["file"]);
    assert_eq!(names(here.path()), ["got", "sent"]);
}

/// The phases that were told, and the bytes that had been sent by then.
type Told = Arc<Mutex<Vec<(Phase, u64)>>>;

/// The phases that are told, without those that only go on.
fn phases() -> (TransferOptions, Told) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let options = TransferOptions::new().progress(move |progress| {
        if !matches!(progress.phase, Phase::Listing | Phase::Transferring) {
            kept.lock().unwrap().push((progress.phase, progress.sent));
        }
    });
    (options, told)
}

#[tokio::test]
async fn an_interrupted_download_is_resumed_if_the_file_is_the_same() {
    let (served, here) = (Served::new().await, TempDir::new().unwrap());
    let local = here.path().join("file");
    let whole = lin(3, 100_000);
    for (is_same, kept) in [(true, 50_000), (false, 0)] {
        fs::write(served.path("file"), &whole).unwrap();
        // A server that is lost in the middle.
        let (script, client) = Script::new().await;
        let part = [&[0; 4], &whole[..50_000]].concat();
        let script = spawn(script.replies(vec![part]));
        let lost = spawn({
            let (client, local) = (client.clone(), local.clone());
            async move { client.get("file", local).await }
        });
        let mut peer = within("a reply", script).await.unwrap();
        assert_eq!(peer.frame().await.path_text(), "/download_file");
        drop(peer);
        lost.abort();
        let _ = lost.await;
        assert_eq!(
            fs::metadata(here.path().join(&names(here.path())[0]))
                .unwrap()
                .len(),
            50_000
        );
        if !is_same {
            fs::write(served.path("file"), lin(4, 100_000)).unwrap();
        }
        let (options, told) = phases();
        let client = served.client().await.with_options(options);
        let report = client.get("file", &local).await.unwrap();
        assert_eq!(report.transferred, 100_000 - kept);
        let first = if is_same {
            Phase::Beginning
        } else {
            Phase::BeginningAgain
        };
        assert_eq!(
            *told.lock().unwrap(),
            [(first, kept), (Phase::Done, 100_000)]
        );
        assert!(fs::read(&local).unwrap() == fs::read(served.path("file")).unwrap());
        assert_eq!(names(here.path()), ["file"]);
        fs::remove_file(&local).unwrap();
    }
}

async fn refused(peer: &mut Peer, path: &str, body: &[u8]) -> String {
    peer.send_frame(&RawFrame::request(path, 1, body)).await;
    let reply = peer.frame().await.body_text();
    let text = reply.strip_prefix(r#"{"code":-1,"message":"handler fail:"#);
    text.unwrap_or_else(|| panic!("{reply}")).to_owned()
}

fn upload(path: &str, start: u64, completed: bool, data: &[u8]) -> Vec<u8> {
    let json = json!({
        "TaskId": 1, "FilePath": path, "UploadStartPos": start, "Completed": completed,
    });
    let json = json.to_string();
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    [&length, json.as_bytes(), data].concat()
}

#[tokio::test]
async fn nothing_outside_of_the_folder_is_reached() {
    let served = Served::new().await;
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    fs::create_dir(served.path("folder")).unwrap();
    std::os::unix::fs::symlink(outside.path(), served.path("folder/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), served.path("file")).unwrap();
    let absolute = outside.path().join("secret");
    let paths = [
        "../secret",
        "folder/../../secret",
        "/srv/files/example/../secret",
        "folder/link/secret",
        "file",
        absolute.to_str().unwrap(),
        "folder",
        "",
        "/",
        "a\0b",
    ];
    let mut peer = served.peer().await;
    for path in paths {
        let download = json!({"FilePath": path}).to_string();
        refused(&mut peer, "/download_file", download.as_bytes()).await;
    }
    let writes = paths
        .iter()
        .filter(|&&path| path != "file" && path != absolute.to_str().unwrap());
    for path in writes {
        refused(&mut peer, "/upload_file", &upload(path, 0, true, b"x")).await;
    }
    // A link gives way to the file; what it leads to stays as it is.
    peer.send_frame(&RawFrame::request(
        "/upload_file",
        1,
        upload("file", 0, true, b"x"),
    ))
    .await;
    peer.frame().await;
    assert_eq!(fs::read(served.path("file")).unwrap(), b"x");
    assert_eq!(names(outside.path()), ["secret"]);
    assert_eq!(fs::read(absolute).unwrap(), b"secret");
    assert_eq!(served.names(), ["file", "folder"]);
}

#[tokio::test]
async fn a_folder_is_read_only_unless_it_is_writable() {
    let served = Served::with(|folder| folder).await;
    let mut peer = served.peer().await;
    let text = refused(&mut peer, "/upload_file", &upload("file", 0, false, b"x")).await;
    assert!(text.contains("read"), "{text}");
    assert_eq!(served.names(), [""; 0]);
}

#[tokio::test]
async fn a_part_that_does_not_follow_the_one_before_is_refused() {
    let served = Served::with(|folder| folder.writable(true).max_file_bytes(20)).await;
    let mut peer = served.peer().await;
    let reply = |done: u64| {
        RawFrame::reply(
            "/upload_file",
            1,
            format!(r#"{{"TaskId":1,"DoneBytes":{done}}}"#),
        )
    };
    let send = |start, completed, data| {
        RawFrame::request("/upload_file", 1, upload("file", start, completed, data))
    };
    let text = refused(&mut peer, "/upload_file", &upload("file", 5, false, b"x")).await;
    assert!(text.contains("has 0 bytes"), "{text}");
    assert_eq!(served.names(), [""; 0]);

    peer.send_frame(&send(0, false, b"0123456789")).await;
    assert_eq!(peer.frame().await, reply(10));
    for (start, completed, data) in [
        (11, false, &b"x"[..]),
        (9, true, b""),
        (15, false, b"sixteen"),
    ] {
        let body = upload("file", start, completed, data);
        refused(&mut peer, "/upload_file", &body).await;
    }
    // A part that is sent again replaces what is there from its position on.
    peer.send_frame(&send(4, false, b"abc")).await;
    assert_eq!(peer.frame().await, reply(3));
    peer.send_frame(&send(7, true, b"")).await;
    assert_eq!(peer.frame().await, reply(0));
    assert_eq!(fs::read(served.path("file")).unwrap(), b"0123abc");
    let body = json!({"FilePath": "file", "DownloadStartPos": 8}).to_string();
    let text = refused(&mut peer, "/download_file", body.as_bytes()).await;
    assert!(text.contains("ends at 7"), "{text}");
}

#[cfg(unix)]
#[tokio::test]
async fn an_upload_keeps_the_permissions_of_the_file_that_it_replaces() {
    use std::os::unix::fs::PermissionsExt as _;

    let (served, here) = (Served::new().await, TempDir::new().unwrap());
    let source = here.path().join("source");
    fs::write(&source, "new").unwrap();
    fs::write(served.path("file"), "old").unwrap();
    fs::set_permissions(served.path("file"), fs::Permissions::from_mode(0o640)).unwrap();
    served.client().await.put(&source, "file").await.unwrap();
    assert_eq!(fs::read(served.path("file")).unwrap(), b"new");
    let mode = fs::metadata(served.path("file")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o640);
}

#[tokio::test]
async fn two_uploads_over_one_connection_do_not_mix_their_files() {
    let (served, here) = (Served::new().await, TempDir::new().unwrap());
    let connection = Client::connect(served.server.target()).await.unwrap();
    let (first, second) = (here.path().join("first"), here.path().join("second"));
    fs::write(&first, vec![b'1'; 5 * MIB]).unwrap();
    fs::write(&second, vec![b'2'; 5 * MIB]).unwrap();
    let put = |local: std::path::PathBuf| {
        let client = GoFileClient::new(connection.clone());
        async move { client.put(local, "file").await }
    };
    let (one, two) = within("two puts", async {
        tokio::join!(put(first.clone()), put(second.clone()))
    })
    .await;
    let file = fs::read(served.path("file")).unwrap();
    let is_whole = |put: &Result<_, Status>, local| put.is_ok() && fs::read(local).unwrap() == file;
    assert!(
        is_whole(&one, first) || is_whole(&two, second),
        "{one:?}, {two:?}"
    );
}

#[tokio::test]
async fn a_second_writer_waits_until_the_first_one_is_silent() {
    let served = Served::new().await;
    let (mut first, mut second) = (served.peer().await, served.peer().await);
    let part = RawFrame::request("/upload_file", 1, upload("file", 0, false, b"first"));
    first.send_frame(&part).await;
    first.frame().await;
    let other = upload("file", 0, true, b"second");
    let text = refused(&mut second, "/upload_file", &other).await;
    assert!(text.contains("being written"), "{text}");

    crate::common::passes(Duration::from_secs(31)).await;
    let other = RawFrame::request("/upload_file", 1, other);
    second.send_frame(&other).await;
    second.frame().await;
    assert_eq!(fs::read(served.path("file")).unwrap(), b"second");
    let rest = upload("file", 5, true, b"");
    refused(&mut first, "/upload_file", &rest).await;
    assert_eq!(fs::read(served.path("file")).unwrap(), b"second");
}

async fn of_hostile(bodies: Vec<Vec<u8>>, is_upload: bool) -> Status {
    let folder = TempDir::new().unwrap();
    let (script, client) = Script::new().await;
    let script = spawn(script.replies(bodies));
    let local = folder.path().join("file");
    let status = if is_upload {
        fs::write(&local, b"data").unwrap();
        within("a failure", client.put(&local, "file"))
            .await
            .unwrap_err()
    } else {
        within("a failure", client.get("file", &local))
            .await
            .unwrap_err()
    };
    within("the script", script).await.unwrap();
    status
}

#[tokio::test]
async fn replies_that_make_no_sense_are_errors() {
    for body in [&b"\0\0\0"[..], b"\0\0\0\x02data", b"\0\0\0\0", b"<html>"] {
        let status = of_hostile(vec![body.to_vec()], false).await;
        assert!(!status.message().is_empty(), "{status}");
    }
    for body in [
        r#"{"TaskId":1,"DoneBytes":5}"#,
        r#"{"TaskId":1,"DoneBytes":0}"#,
        "{}",
        "no",
    ] {
        let status = of_hostile(vec![body.into()], true).await;
        assert!(!status.message().is_empty(), "{status}");
    }
    // The server has taken one byte at a time.
    let folder = TempDir::new().unwrap();
    let (script, client) = Script::new().await;
    let one = br#"{"TaskId":1,"DoneBytes":1}"#.to_vec();
    let none = br#"{"TaskId":1,"DoneBytes":0}"#.to_vec();
    let script = spawn(script.replies(vec![one.clone(), one, none]));
    let local = folder.path().join("file");
    fs::write(&local, b"ab").unwrap();
    let report = within("an upload", client.put(&local, "file"))
        .await
        .unwrap();
    within("the script", script).await.unwrap();
    assert_eq!(report.bytes, 2);
}
