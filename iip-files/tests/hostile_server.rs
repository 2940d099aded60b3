//! Servers that try to leave the folder of a client, or to exhaust its memory.

use std::fs;
use std::os::unix::fs::symlink;

use iip_files::service::{
    CommitRequest, Entry, Files, FilesServer, Identity, Kind, Listed, OpenRequest, Opened, Piece,
    ReadRequest, SmallFile, SmallRead, UploadStatus,
};
use iip_files::{FileClient, Hash};
use iip_rpc::{CallContext, Client, Code, Server, Status, Stream, Streaming};

use crate::common::{MIB, content, names, pieces, within};

/// A server that sends whatever a test has configured.
#[derive(Clone)]
struct Hostile {
    entry: Entry,
    listed: Vec<Listed>,
    small: Vec<SmallRead>,
    pieces: Vec<Piece>,
    /// Set if the pieces, or the list, never end.
    is_endless: bool,
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
            pieces: Vec::new(),
            is_endless: false,
        }
    }

    async fn get(self, local: &std::path::Path) -> Status {
        let server = Server::builder().service(FilesServer::new(self));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let files = FileClient::new(Client::connect(server.target()).await.unwrap());
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
            offset: u64::MAX,
            restarted: false,
        })
    }

    async fn write(
        &self,
        _: &CallContext,
        _: u64,
        _: Streaming<Piece>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        Ok(Streaming::iter([u64::MAX]))
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
        ".out.0123456789abcdef.part",
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
    for hostile in [
        Hostile::directory(vec![listed("dir/file", Kind::File)], small()),
        Hostile::directory(vec![listed("dir/below", Kind::Directory)], small()),
    ] {
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
        assert!(
            names(&target)
                .iter()
                .all(|name| name.ends_with(".journal") || name.ends_with(".part"))
        );
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
