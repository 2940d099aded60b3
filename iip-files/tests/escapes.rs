//! Clients that try to leave the folder of a server.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use iip_files::service::{
    CommitRequest, Entry, Files, Identity, Kind, Listed, OpenRequest, ReadRequest, SmallFile,
    SmallRead,
};
use iip_rpc::{CallContext, Code, Status, Streaming};

use crate::common::{MIB, Pair, content, names, part_name, pieces, within};

/// Tries to read and to write a path by every method that takes one.
async fn all_attempts(pair: &Pair, path: &str) -> Vec<(&'static str, Status)> {
    let files = pair.raw();
    let text = || path.to_owned();
    let identity = Identity {
        size: 1,
        ..Identity::default()
    };
    let mut refused = Vec::new();
    let mut note = |method, outcome: Result<(), Status>| {
        refused.push((method, outcome.expect_err(method)));
    };
    if !path.is_empty() {
        note("stat", files.stat(path).await.map(drop));
        note("list", files.list(path).await.map(drop));
    }
    let entry = Entry {
        kind: Kind::Directory,
        identity,
    };
    note(
        "missing",
        files
            .missing(vec![Listed {
                path: text(),
                entry,
            }])
            .await
            .map(drop),
    );
    note(
        "make_directories",
        files.make_directories(vec![text()]).await,
    );
    let request = ReadRequest {
        path: text(),
        identity,
        offset: 0,
    };
    note(
        "read",
        files.read(&CallContext::new(), request).await.map(drop),
    );
    note("checksum", files.checksum(path, identity).await.map(drop));
    note("status", files.status(path).await.map(drop));
    let request = OpenRequest {
        path: text(),
        identity,
        previous: None,
    };
    note("open", files.open(request).await.map(drop));
    let hash = (*blake3::hash(b"x").as_bytes()).into();
    let bytes = b"x".to_vec().into();
    let small = SmallFile {
        path: text(),
        modified: identity.modified,
        hash,
        bytes,
    };
    note("write_small", files.write_small(vec![small]).await);
    match &files.read_small(vec![text()]).await.unwrap()[..] {
        [SmallRead::Refused(_)] => {}
        read => panic!("{read:?}"),
    }
    refused
}

#[tokio::test]
async fn paths_that_lead_out_are_refused_by_every_method() {
    let pair = Pair::new().await;
    fs::write(pair.served.join("file"), "x").unwrap();
    let long = "a".repeat(256);
    let deep = "a/".repeat(3000);
    let paths = [
        "/etc/passwd",
        "../local/file",
        "..",
        ".",
        "a/../../file",
        "./file",
        "a//file",
        "file/",
        "fi\0le",
        &part_name("file"),
        &part_name("file").replace(".part", ".journal"),
        &long,
        &deep,
        &format!("a/{}/b", part_name("x")),
    ];
    for path in paths {
        for (method, status) in within("the attempts", all_attempts(&pair, path)).await {
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{method} {path:?}: {status}"
            );
        }
    }
    assert_eq!(pair.names(), ["file"]);
    assert!(names(&pair.local).is_empty());
}

#[tokio::test]
async fn symbolic_links_are_not_followed_wherever_they_lead() {
    let pair = Pair::new().await;
    let outside = pair.local.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::create_dir(pair.served.join("inside")).unwrap();
    symlink(&outside, pair.served.join("out")).unwrap();
    symlink("../local/outside", pair.served.join("relative")).unwrap();
    symlink("inside", pair.served.join("in")).unwrap();
    symlink("loop", pair.served.join("loop")).unwrap();
    for path in ["out/secret", "relative/secret", "in/file", "loop/file"] {
        let files = pair.raw();
        let identity = Identity {
            size: 1,
            ..Identity::default()
        };
        let request = OpenRequest {
            path: path.to_owned(),
            identity,
            previous: None,
        };
        let request_read = ReadRequest {
            path: path.to_owned(),
            identity,
            offset: 0,
        };
        let refused = [
            files.open(request).await.map(drop).unwrap_err(),
            files
                .read(&CallContext::new(), request_read)
                .await
                .map(drop)
                .unwrap_err(),
            files.stat(path).await.map(drop).unwrap_err(),
            files
                .make_directories(vec![path.to_owned()])
                .await
                .unwrap_err(),
        ];
        for status in refused {
            assert_eq!(status.code(), Code::FailedPrecondition, "{path}: {status}");
            assert!(
                status.message().contains("symbolic link"),
                "{path}: {status}"
            );
        }
    }
    let link = pair.served.join("link");
    symlink(outside.join("secret"), &link).unwrap();
    let target = pair.local.join("target");
    let status = pair.files().get("link", &target).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let request = ReadRequest {
        path: "link".into(),
        identity: Identity::default(),
        offset: 0,
    };
    let status = pair
        .raw()
        .read(&CallContext::new(), request)
        .await
        .map(drop)
        .unwrap_err();
    assert!(status.message().contains("symbolic link"), "{status}");
    // A write replaces the link itself.
    fs::write(&target, "new").unwrap();
    pair.files().put(&target, "link").await.unwrap();
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(names(&outside), ["secret"]);
    assert!(names(&pair.served.join("inside")).is_empty());
}

#[tokio::test]
async fn a_directory_that_is_swapped_for_a_link_during_an_upload_leads_nowhere() {
    let pair = Pair::new().await;
    let files = pair.raw();
    let content = content(MIB);
    let identity = Identity {
        size: MIB as u64,
        ..Identity::default()
    };
    let path = "dir/file".to_owned();
    let opened = files
        .open(OpenRequest {
            path,
            identity,
            previous: None,
        })
        .await
        .unwrap();
    fs::rename(pair.served.join("dir"), pair.served.join("moved")).unwrap();
    symlink(&pair.local, pair.served.join("dir")).unwrap();
    let stream = Streaming::iter(pieces(&content, MIB));
    let ctx = CallContext::new();
    let mut positions = files.write(&ctx, opened.transfer, stream).await.unwrap();
    assert_eq!(positions.next().await.unwrap().unwrap(), MIB as u64);
    let transfer = opened.transfer;
    files
        .commit(CommitRequest {
            transfer,
            hash: None,
            verify: false,
        })
        .await
        .unwrap();
    assert!(names(&pair.local).is_empty());
    assert_eq!(names(&pair.served.join("moved")), ["file"]);
}

#[tokio::test]
async fn a_part_that_is_a_link_or_has_other_names_is_not_written() {
    let identity = Identity {
        size: 8,
        ..Identity::default()
    };
    let request = OpenRequest {
        path: "file".into(),
        identity,
        previous: None,
    };
    let pair = Pair::new().await;
    pair.raw().open(request.clone()).await.unwrap();
    // The names of the part and its journal.
    for name in pair.names() {
        let pair = Pair::new().await;
        let victim = pair.local.join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, pair.served.join(&name)).unwrap();
        pair.raw().open(request.clone()).await.unwrap_err();
        fs::remove_file(pair.served.join(&name)).unwrap();
        fs::hard_link(&victim, pair.served.join(&name)).unwrap();
        let status = pair.raw().open(request.clone()).await.unwrap_err();
        assert!(status.message().contains("several names"), "{status}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}

#[tokio::test]
async fn pipes_sockets_and_directories_are_not_files() {
    let pair = Pair::new().await;
    let pipe = pair.served.join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(pair.served.join("socket")).unwrap();
    fs::create_dir(pair.served.join("dir")).unwrap();
    let source = pair.local.join("source");
    fs::write(&source, "x").unwrap();
    for path in ["pipe", "socket", "dir"] {
        let request = ReadRequest {
            path: path.into(),
            identity: Identity::default(),
            offset: 0,
        };
        let files = pair.raw();
        let ctx = CallContext::new();
        let read = within("the refusal", files.read(&ctx, request))
            .await
            .map(drop);
        assert_eq!(read.unwrap_err().code(), Code::FailedPrecondition, "{path}");
        let put = within("the refusal", pair.files().put(&source, path)).await;
        assert_eq!(put.unwrap_err().code(), Code::FailedPrecondition, "{path}");
    }
    let put = within("the refusal", pair.files().put(&pipe, "file")).await;
    assert_eq!(put.unwrap_err().code(), Code::FailedPrecondition);
}
