//! Directories, in both directions.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use iip_files::{Folder, Phase, Progress, TransferOptions};
use iip_rpc::Code;
use tokio::sync::watch;

use crate::common::{MIB, Pair, content, names, serve_at, within};

/// Creates a tree of 253 files of several sizes, with an empty directory.
fn make_tree(root: &Path) -> u64 {
    let mut bytes = 0;
    let mut write = |path: String, size: usize| {
        fs::write(root.join(path), content(size)).unwrap();
        bytes += size as u64;
    };
    fs::create_dir_all(root.join("many/deeper/empty")).unwrap();
    for number in 0..250 {
        write(format!("many/{number}"), number * 17);
    }
    write("many/deeper/large".to_owned(), 3 * MIB + 5);
    write("many/deeper/nearly small".to_owned(), 64 * 1024);
    write("zero".to_owned(), 0);
    bytes
}

/// A path, with the content and time of a file.
type Found = (String, Option<(Vec<u8>, SystemTime)>);

/// Returns everything below a directory, sorted.
fn tree(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                found.push((name, None));
                directories.push(path);
            } else if metadata.is_file() {
                let content = fs::read(&path).unwrap();
                found.push((name, Some((content, metadata.modified().unwrap()))));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_directory_makes_the_round_trip_and_is_not_sent_twice() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    let bytes = make_tree(&source);
    symlink("/etc/passwd", source.join("many/link")).unwrap();
    let pipe = source.join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::set_permissions(source.join("zero"), fs::Permissions::from_mode(0o4777)).unwrap();

    let last = Arc::new(Mutex::new(Progress::default()));
    let seen = Arc::clone(&last);
    let options = TransferOptions::new().progress(move |progress| {
        *seen.lock().unwrap() = progress.clone();
    });
    let files = pair.files().with_options(options);
    let report = within("the put", files.put(&source, "a/b")).await.unwrap();
    let counts = (
        report.files,
        report.bytes,
        report.transferred,
        report.unchanged,
    );
    assert_eq!(counts, (253, bytes, bytes, 0));
    let skipped: Vec<_> = report
        .skipped
        .iter()
        .map(|skipped| skipped.path.as_str())
        .collect();
    assert_eq!(skipped, ["pipe", "many/link"]);
    assert!(tree(&pair.served.join("a/b")) == tree(&source));
    let mode = fs::metadata(pair.served.join("a/b/zero"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7133, 0, "{mode:o}");
    {
        let last = last.lock().unwrap();
        let counts = (last.files, last.files_total, last.bytes, last.bytes_total);
        assert_eq!(counts, (253, 253, bytes, bytes));
    }

    let target = pair.local.join("target");
    let report = within("the get", pair.files().get("a", &target))
        .await
        .unwrap();
    let counts = (
        report.files,
        report.bytes,
        report.transferred,
        report.unchanged,
    );
    assert_eq!(counts, (253, bytes, bytes, 0));
    assert!(tree(&target.join("b")) == tree(&source));

    let report = within("a second put", pair.files().put(&source, "a/b"))
        .await
        .unwrap();
    assert_eq!(
        (report.files, report.transferred, report.unchanged),
        (0, 0, 253)
    );
    fs::write(target.join("b/many/7"), "changed").unwrap();
    fs::remove_file(target.join("b/zero")).unwrap();
    let report = within("a second get", pair.files().get("a", &target))
        .await
        .unwrap();
    assert_eq!((report.files, report.unchanged), (2, 251));
    assert!(tree(&target.join("b")) == tree(&source));
}

#[tokio::test]
async fn a_directory_goes_on_with_a_restarted_server() {
    let pair = Pair::with(|folder| folder.writable(true).bytes_per_second(100 * 1024)).await;
    let source = pair.local.join("source");
    make_tree(&source);
    let address = pair.server.local_addr().unwrap();
    let (begun, mut has_begun) = watch::channel(false);
    let options = TransferOptions::new().progress(move |progress| {
        if progress.files > 0 {
            begun.send_replace(true);
        }
    });
    let (files, from) = (pair.files().with_options(options), source.clone());
    let put = tokio::spawn(async move { files.put(from, "copy").await });
    within(
        "the first files",
        has_begun.wait_for(|has_begun| *has_begun),
    )
    .await
    .unwrap();
    within("the shutdown", pair.server.shutdown(Duration::ZERO)).await;
    let _server = serve_at(address, Folder::open(&pair.served).unwrap().writable(true)).await;
    let report = within("the put", put).await.unwrap().unwrap();
    assert_eq!(report.files, 253);
    assert!(tree(&pair.served.join("copy")) == tree(&source));
}

#[tokio::test]
async fn the_whole_folder_is_a_directory_too() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    pair.files().put(&source, "").await.unwrap();
    assert_eq!(pair.names(), ["file"]);
    let target = pair.local.join("target");
    pair.files().get("", &target).await.unwrap();
    assert!(tree(&target) == tree(&source));
}

#[tokio::test]
async fn a_directory_with_too_many_files_is_refused_on_both_sides() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..20 {
        fs::write(source.join(number.to_string()), "x").unwrap();
    }
    pair.files().put(&source, "many").await.unwrap();
    let files = pair
        .files()
        .with_options(TransferOptions::new().max_files(19));
    let put = files.put(&source, "other").await.unwrap_err();
    let get = files
        .get("many", pair.local.join("target"))
        .await
        .unwrap_err();
    for status in [put, get] {
        assert!(
            status.message().contains("TransferOptions::max_files"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn names_that_are_no_text_are_skipped_and_listed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("fine"), "x").unwrap();
    let name = OsStr::from_bytes(b"no\xfftext");
    fs::write(source.join(name), "x").unwrap();
    let report = pair.files().put(&source, "there").await.unwrap();
    assert_eq!((report.files, report.skipped.len()), (1, 1));
    fs::write(pair.served.join("there").join(name), "x").unwrap();
    let report = pair
        .files()
        .get("there", pair.local.join("target"))
        .await
        .unwrap();
    assert_eq!((report.files, report.skipped.len()), (1, 1));
}

/// Replaces files of a directory once it is listed: the sources can then no longer be read.
fn spoil(root: &Path) -> TransferOptions {
    let (root, is_due) = (root.to_owned(), AtomicBool::new(true));
    TransferOptions::new().progress(move |progress| {
        if progress.files_total > 0 && is_due.swap(false, Ordering::SeqCst) {
            for name in ["large", "small"] {
                fs::remove_file(root.join(name)).unwrap();
                fs::create_dir(root.join(name)).unwrap();
                fs::remove_file(root.join(format!("below/{name} too"))).unwrap();
            }
        }
    })
}

#[tokio::test]
async fn what_cannot_be_read_at_its_source_is_listed_and_the_rest_is_transferred() {
    for is_put in [true, false] {
        let pair = Pair::new().await;
        let (source, target) = match is_put {
            true => (pair.local.join("it"), pair.served.join("it")),
            false => (pair.served.join("it"), pair.local.join("it")),
        };
        fs::create_dir_all(source.join("below")).unwrap();
        for (name, size) in [
            ("below/a", 1),
            ("below/large too", 2 * MIB),
            ("below/small too", 1),
            ("large", MIB),
            ("last", 2 * MIB),
            ("small", 5),
            ("zero", 0),
        ] {
            fs::write(source.join(name), content(size)).unwrap();
        }
        let files = pair.files().with_options(spoil(&source));
        let report = match is_put {
            true => within("the put", files.put(&source, "it")).await,
            false => within("the get", files.get("it", &target)).await,
        };
        let report = report.unwrap();
        let mut paths: Vec<_> = report.unreadable.iter().map(|entry| &entry.path).collect();
        paths.sort();
        assert_eq!(
            paths,
            ["below/large too", "below/small too", "large", "small"]
        );
        assert!(
            report
                .unreadable
                .iter()
                .all(|entry| !entry.reason.is_empty())
        );
        let counts = (report.unreadable_count, report.skipped_count, report.files);
        assert_eq!(counts, (4, 0, 3));
        assert_eq!(names(&target), ["below", "last", "zero"]);
        assert_eq!(names(&target.join("below")), ["a"]);
    }
}

#[tokio::test]
async fn a_folder_of_the_receiver_that_is_removed_ends_the_transfer() {
    let pair = Pair::new().await;
    fs::create_dir_all(pair.served.join("it/below")).unwrap();
    for name in ["a", "b"] {
        fs::write(pair.served.join("it/below").join(name), content(2 * MIB)).unwrap();
    }
    let target = pair.local.join("it");
    let (removed, is_due) = (target.join("below"), AtomicBool::new(true));
    let options = TransferOptions::new().progress(move |progress| {
        if progress.phase == Phase::Committing && is_due.swap(false, Ordering::SeqCst) {
            fs::remove_dir_all(&removed).unwrap();
        }
    });
    let files = pair.files().with_options(options);
    let got = within("the get", files.get("it", &target)).await;
    let status = got.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn small_files_replace_only_files() {
    let pair = Pair::new().await;
    let occupied = |root: &Path| {
        fs::create_dir(root.join("dir")).unwrap();
        let mut pipe = std::process::Command::new("mkfifo");
        assert!(pipe.arg(root.join("pipe")).status().unwrap().success());
        drop(UnixListener::bind(root.join("socket")).unwrap());
    };
    for name in ["dir", "pipe", "socket"] {
        let (source, there) = (pair.local.join(name), pair.served.join(name));
        for (new, old) in [(&source, &there), (&there, &pair.local.join("target"))] {
            let _ = fs::remove_dir_all(new);
            let _ = fs::remove_dir_all(old);
            fs::create_dir(new).unwrap();
            fs::create_dir(old).unwrap();
            fs::write(new.join(name), "x").unwrap();
            occupied(old);
            let status = match new == &source {
                true => pair.files().put(new, name).await.unwrap_err(),
                false => pair.files().get(name, old).await.unwrap_err(),
            };
            assert_eq!(status.code(), Code::FailedPrecondition, "{name}: {status}");
            assert_eq!(names(old), ["dir", "pipe", "socket"], "{name}");
            assert!(!old.join(name).is_file(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_mode() {
    let pair = Pair::new().await;
    let (source, served) = (pair.local.join("it"), pair.served.join("it"));
    for folder in [&source, &served] {
        fs::create_dir(folder).unwrap();
    }
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (name, size) in [("small", 5), ("large", MIB)] {
        fs::write(source.join(name), content(size)).unwrap();
        fs::write(served.join(name), "old").unwrap();
        set(&served.join(name), 0o4640).unwrap();
    }
    pair.files().put(&source, "it").await.unwrap();
    for name in ["small", "large"] {
        assert!(fs::read(served.join(name)).unwrap() == fs::read(source.join(name)).unwrap());
        assert_eq!(mode(&served.join(name)), 0o640, "{name}");
        set(&source.join(name), 0o600).unwrap();
        fs::write(served.join(name), "newer").unwrap();
        let there = format!("it/{name}");
        pair.files().get(&there, source.join(name)).await.unwrap();
        assert_eq!(mode(&source.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_whose_time_has_no_fraction_of_a_second_is_not_sent_again() {
    let pair = Pair::new().await;
    let source = pair.local.join("it");
    fs::create_dir(&source).unwrap();
    let file = fs::File::create(source.join("file")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_700);
    file.set_modified(time).unwrap();
    pair.files().put(&source, "it").await.unwrap();
    for (milliseconds, unchanged) in [(1_700_000_000_000, 1), (1_700_000_000_600, 0)] {
        let there = fs::File::options()
            .write(true)
            .open(pair.served.join("it/file"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        there.unwrap().set_modified(time).unwrap();
        let report = pair.files().put(&source, "it").await.unwrap();
        assert_eq!(report.unchanged, unchanged, "{milliseconds}");
    }
}
