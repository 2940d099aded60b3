//! Servers that try to leave the folder of a client, or to exhaust its memory.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use iip_files::service::{
    CommitRequest, Entry, Files, FilesServer, Identity, Kind, Listed, OpenRequest, Opened, Piece,
    ReadRequest, SmallFile, SmallRead, UploadStatus,
};
use iip_files::{FileClient, Hash, Report, TransferOptions};
use iip_rpc::{CallContext, Client, Code, Server, Status, Stream, Streaming};

use crate::common::{MIB, content, names, part_name, pieces, within};

/// A server that sends whatever a test has configured.
#[derive(Clone)]
struct Hostile {
    entry: Entry,
    listed: Vec<Listed>,
    small: Vec<SmallRead>,
    pieces: Vec<Piece>,
    /// Set if the pieces, or the list, never end.
    is_endless: bool,
    /// Set if streams yield nothing and never end.
    is_hung: bool,
    /// The offset at which an upload starts.
    offset: u64,
    /// The positions that an upload yields. If there are none, it reads all pieces, and then claims
    /// that they are on disk.
    positions: Vec<u64>,
}

/// A stream that yields one item at most, and never ends. It keeps another stream open.
struct Hung<T, K>(Option<T>, K);

impl<T: Unpin, K: Unpin> Stream for Hung<T, K> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.take() {
            Some(item) => Poll::Ready(Some(Ok(item))),
            None => Poll::Pending,
        }
    }
}

impl Hostile {
    fn file(size: usize, pieces: Vec<Piece>) -> Self {
        let identity = Identity {
            size: size as u64,
            ..Identity::default()
        };
        let entry = Entry {
            kind: Kind::File,
            identity,
        };
        Self {
            entry,
            listed: Vec::new(),
            small: Vec::new(),
            pieces,
            is_endless: false,
            is_hung: false,
            offset: u64::MAX,
            positions: vec![u64::MAX],
        }
    }

    fn directory(listed: Vec<Listed>, small: Vec<SmallRead>) -> Self {
        let entry = Entry {
            kind: Kind::Directory,
            identity: Identity::default(),
        };
        Self {
            entry,
            listed,
            small,
            ..Self::file(0, Vec::new())
        }
    }

    async fn serve(self) -> (Server, FileClient) {
        let server = Server::builder().service(FilesServer::new(self));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let files = FileClient::new(Client::connect(server.target()).await.unwrap());
        (server, files)
    }

    async fn get(self, local: &Path) -> Status {
        let (_server, files) = self.serve().await;
        within("the get", files.get("it", local)).await.unwrap_err()
    }
}

impl Files for Hostile {
    async fn stat(&self, _: &str) -> Result<Entry, Status> {
        Ok(self.entry)
    }

    async fn list(
        &self,
        _: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Listed>, Status>>, Status> {
        if self.is_hung {
            return Ok(Streaming::new(Hung(None, ())));
        }
        let times = if self.is_endless { usize::MAX } else { 1 };
        Ok(Streaming::iter(std::iter::repeat_n(
            self.listed.clone(),
            times,
        )))
    }

    async fn read(
        &self,
        _: &CallContext,
        _: ReadRequest,
    ) -> Result<impl Stream<Item = Result<Piece, Status>>, Status> {
        if self.is_hung {
            return Ok(Streaming::new(Hung(None, ())));
        }
        let times = if self.is_endless { usize::MAX } else { 1 };
        let pieces = self.pieces.clone();
        Ok(Streaming::iter(
            std::iter::repeat_n(pieces, times).flatten(),
        ))
    }

    async fn read_small(&self, _: Vec<String>) -> Result<Vec<SmallRead>, Status> {
        Ok(self.small.clone())
    }

    async fn checksum(&self, _: &str, _: Identity) -> Result<Hash, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn open(&self, _: OpenRequest) -> Result<Opened, Status> {
        Ok(Opened {
            transfer: 1,
            offset: self.offset,
            restarted: false,
        })
    }

    async fn write(
        &self,
        _: &CallContext,
        _: u64,
        mut pieces: Streaming<Piece>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        if self.is_hung {
            let position = self.positions.first().copied();
            return Ok(Streaming::new(Hung(position, pieces)));
        }
        if !self.positions.is_empty() {
            return Ok(Streaming::iter(self.positions.clone()));
        }
        let (sender, positions) = Streaming::channel(1);
        tokio::spawn(async move {
            while pieces.next().await.is_some() {}
            // If this fails, the client has disconnected.
            let _ = sender.send(u64::MAX).await;
        });
        Ok(positions)
    }

    async fn status(&self, _: &str) -> Result<UploadStatus, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn commit(&self, _: CommitRequest) -> Result<Hash, Status> {
        Ok([0; 32].into())
    }

    async fn missing(&self, _: Vec<Listed>) -> Result<Vec<bool>, Status> {
        Ok(Vec::new())
    }

    async fn make_directories(&self, _: Vec<String>) -> Result<(), Status> {
        Ok(())
    }

    async fn write_small(&self, _: Vec<SmallFile>) -> Result<(), Status> {
        Ok(())
    }
}

fn listed(path: &str, kind: Kind) -> Listed {
    let identity = Identity {
        size: 1,
        ..Identity::default()
    };
    Listed {
        path: path.to_owned(),
        entry: Entry { kind, identity },
    }
}

fn small(content: &[u8]) -> SmallRead {
    let hash = (*blake3::hash(content).as_bytes()).into();
    SmallRead::File {
        modified: Default::default(),
        hash,
        bytes: content.to_vec().into(),
    }
}

#[tokio::test]
async fn paths_that_lead_out_are_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let long = "a".repeat(256);
    let paths = [
        "../out",
        "/tmp/iip-files-out",
        "a/../../out",
        "",
        "a//b",
        ".",
        "a\0",
        &long,
        &part_name("out"),
    ];
    for path in paths {
        for kind in [Kind::File, Kind::Directory] {
            let hostile = Hostile::directory(vec![listed(path, kind)], vec![small(b"x")]);
            let status = hostile.get(&target).await;
            assert!(
                status.message().contains("the server sent"),
                "{path:?}: {status}"
            );
        }
    }
    assert!(names(temp.path()).is_empty());
}

#[tokio::test]
async fn a_link_in_the_target_leads_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let (target, outside) = (temp.path().join("target"), temp.path().join("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, target.join("dir")).unwrap();
    let small = || vec![small(b"x")];
    for hostile in [("dir/file", Kind::File), ("dir/below", Kind::Directory)].map(|(path, kind)| {
        let all = vec![listed("dir", Kind::Directory), listed(path, kind)];
        Hostile::directory(all, small())
    }) {
        let status = hostile.get(&target).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("symbolic link"), "{status}");
    }
    assert!(names(&outside).is_empty());
}

#[tokio::test]
async fn files_that_are_not_what_was_announced_are_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let file = || vec![listed("file", Kind::File)];
    let large = small(&content(MIB));
    let wrong = SmallRead::File {
        modified: Default::default(),
        hash: [1; 32].into(),
        bytes: Vec::new().into(),
    };
    for answer in [
        vec![],
        vec![small(b"x"), small(b"y")],
        vec![large],
        vec![wrong],
    ] {
        Hostile::directory(file(), answer).get(&target).await;
        assert!(names(&target).is_empty());
    }
    let content = content(2 * MIB);
    let good = pieces(&content, content.len());
    let mut endless = Hostile::file(2 * MIB, good.clone());
    endless.is_endless = true;
    let wrong = vec![Piece {
        chunk: Some([0; 32]),
        bytes: vec![1; 100].into(),
    }];
    let cases = [
        (endless, Code::InvalidArgument),
        (
            Hostile::file(2 * MIB, good[..5].to_vec()),
            Code::InvalidArgument,
        ),
        (Hostile::file(100, wrong), Code::DataLoss),
        (Hostile::file(2 * MIB, good[1..].to_vec()), Code::DataLoss),
        (Hostile::file(3 * MIB, good), Code::InvalidArgument),
    ];
    for (number, (hostile, code)) in cases.into_iter().enumerate() {
        let target = temp.path().join(format!("file{number}"));
        let status = hostile.get(&target).await;
        assert_eq!(status.code(), code, "{number}: {status}");
        assert!(!target.exists());
    }
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let temp = tempfile::tempdir().unwrap();
    let mut hostile = Hostile::directory(vec![listed("file", Kind::File); 1000], Vec::new());
    hostile.is_endless = true;
    let status = hostile.get(&temp.path().join("target")).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("max_files"), "{status}");
    assert!(names(temp.path()).is_empty());
}

#[tokio::test]
async fn a_list_of_nothing_or_without_the_parents_of_its_entries_is_not_accepted() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let mut nothing = Hostile::directory(Vec::new(), Vec::new());
    nothing.is_endless = true;
    let deep = vec![listed("a/b/c", Kind::Directory)];
    let before = vec![listed("a/b", Kind::File), listed("a", Kind::Directory)];
    let under_file = vec![listed("a", Kind::File), listed("a/b", Kind::File)];
    for hostile in [
        nothing,
        Hostile::directory(deep, Vec::new()),
        Hostile::directory(before, Vec::new()),
        Hostile::directory(under_file, Vec::new()),
    ] {
        let status = hostile.get(&target).await;
        assert!(status.message().contains("the server sent"), "{status}");
    }
    assert!(names(temp.path()).is_empty());
}

#[tokio::test]
async fn the_reasons_of_a_server_take_limited_memory() {
    let temp = tempfile::tempdir().unwrap();
    let count = 1500;
    let all = (0..count).map(|number| listed(&number.to_string(), Kind::File));
    let refused = vec![SmallRead::Refused("\u{e4}".repeat(50_000)); 100];
    let (_server, files) = Hostile::directory(all.collect(), refused).serve().await;
    let got = within("the get", files.get("it", temp.path())).await;
    let report: Report = got.unwrap();
    assert_eq!((report.unreadable_count, report.skipped_count), (count, 0));
    assert_eq!(report.unreadable.len(), 1000);
    let longest = report.unreadable.iter().map(|skipped| skipped.reason.len());
    assert!(longest.max().unwrap() <= 400);
}

#[tokio::test]
async fn a_small_file_that_is_larger_than_the_limit_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let hostile = Hostile::directory(vec![listed("file", Kind::File)], vec![small(b"12345")]);
    let (_server, files) = hostile.serve().await;
    let files = files.with_options(TransferOptions::new().max_file_bytes(4));
    let got = within("the get", files.get("it", &target)).await;
    let status = got.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("max_file_bytes"), "{status}");
    assert!(names(&target).is_empty());
}

/// Advances the clock until a transfer ends, in steps between which everything else runs.
async fn ends_in_time<T>(transfer: impl Future<Output = T>) -> T {
    let mut transfer = std::pin::pin!(transfer);
    for _ in 0..600 {
        for _ in 0..1000 {
            tokio::select! {
                biased;
                outcome = &mut transfer => return outcome,
                () = tokio::task::yield_now() => {}
            }
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(500)).await;
        tokio::time::resume();
    }
    panic!("the transfer waits for ever");
}

#[tokio::test]
async fn a_transfer_with_a_server_that_hangs_ends_with_the_time_that_it_took() {
    let temp = tempfile::tempdir().unwrap();
    let (source, target) = (temp.path().join("source"), temp.path().join("target"));
    // More than fits into the window of a stream.
    fs::write(&source, content(24 * MIB)).unwrap();
    let hung = |hostile: Hostile, positions: Vec<u64>| Hostile {
        is_hung: true,
        offset: 0,
        positions,
        ..hostile
    };
    let file = || Hostile::file(MIB, Vec::new());
    let (_list, list) = hung(Hostile::directory(Vec::new(), Vec::new()), Vec::new())
        .serve()
        .await;
    let (_read, read) = hung(file(), Vec::new()).serve().await;
    let (_write, write) = hung(file(), Vec::new()).serve().await;
    let (_claim, claim) = hung(file(), vec![u64::MAX]).serve().await;
    for (name, outcome) in [
        ("list", ends_in_time(list.get("it", &target)).await),
        ("read", ends_in_time(read.get("it", &target)).await),
        ("write", ends_in_time(write.put(&source, "it")).await),
        ("claim", ends_in_time(claim.put(&source, "it")).await),
    ] {
        let status = outcome.expect_err(name);
        assert_eq!(status.code(), Code::Unavailable, "{name}: {status}");
        let text = status.message();
        assert!(
            text.contains("silent (no progress for 3"),
            "{name}: {status}"
        );
        assert!(!target.exists());
    }
}

#[tokio::test]
async fn a_hash_that_is_not_that_of_the_source_is_not_reported() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::write(&source, content(MIB)).unwrap();
    let liar = |positions| Hostile {
        offset: 0,
        positions,
        ..Hostile::file(1, Vec::new())
    };
    let (_server, files) = liar(Vec::new()).serve().await;
    let status = within("the put", files.put(&source, "it")).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    // This server claims to have the bytes before it has read them.
    let (_server, files) = liar(vec![u64::MAX]).serve().await;
    let put = within("the put", files.put(&source, "it")).await;
    assert!(put.is_err(), "{put:?}");
}

#[tokio::test]
async fn a_server_that_lies_about_an_upload_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::write(&source, content(MIB)).unwrap();
    let server = Server::builder().service(FilesServer::new(Hostile::file(1, Vec::new())));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let files = FileClient::new(Client::connect(server.target()).await.unwrap());
    let status = within("the put", files.put(&source, "it"))
        .await
        .unwrap_err();
    assert!(status.message().contains("the server sent"), "{status}");
}
