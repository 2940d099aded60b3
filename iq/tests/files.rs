//! `iq put`, `iq get` and `iq serve`.

mod disk;
mod interrupted;
mod support;
mod unreadable;

use std::fs;

use crate::common::{Home, LONG};
pub(crate) use support::Serve;
use support::{bytes, hash};

#[tokio::test]
async fn files_make_the_round_trip() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    for size in [0, 1, 5000, 3 << 20] {
        let data = bytes(size);
        let file = home.write("here/file", &data);
        let line = format!("{size} bytes\tblake3 {}\n", hash(&data));
        let put = home.iq(&["put", &file, &server.uri("copy")]).await;
        assert_eq!(put.data(), format!("{file}\t{line}"));
        assert!(fs::read(server.folder.join("copy")).unwrap() == data);
        let got = home.0.join("got");
        let get = home
            .iq(&["get", &server.uri("copy"), got.to_str().unwrap()])
            .await;
        assert_eq!(get.data(), format!("copy\t{line}"));
        assert!(fs::read(&got).unwrap() == data);
        fs::remove_file(got).unwrap();
    }
    assert_eq!(server.names(""), ["copy"]);
    server.end().await;
}

#[tokio::test]
async fn verified_files_are_the_same() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let data = bytes(2_500_000);
    let file = home.write("here/file", &data);
    let put = ["put", "--verify", "--json", &file, &server.uri("copy")];
    let lines = home.iq(&put).await.json();
    assert_eq!(lines.last().unwrap()["blake3"], hash(&data));
    assert!(fs::read(server.folder.join("copy")).unwrap() == data);
    let got = home.0.join("got");
    let get = [
        "get",
        "--verify",
        "--json",
        &server.uri("copy"),
        got.to_str().unwrap(),
    ];
    let lines = home.iq(&get).await.json();
    let done = lines.last().unwrap();
    assert_eq!(done["type"], "got");
    assert_eq!(
        (&done["bytes"], &done["files"]),
        (&2_500_000.into(), &1.into())
    );
    assert!(fs::read(got).unwrap() == data);
}

#[tokio::test]
async fn folders_make_the_round_trip() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    for (name, size) in [("a", 10), ("b/c", 0), ("b/d/e", 2 << 20), ("b/d/f", 70_000)] {
        home.write(&format!("here/{name}"), bytes(size));
    }
    fs::create_dir(home.0.join("here/empty")).unwrap();
    std::os::unix::fs::symlink("a", home.0.join("here/link")).unwrap();
    let here = home.0.join("here");
    let ran = home
        .iq(&["put", here.to_str().unwrap(), &server.uri("in/")])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("skipped link"), "{}", ran.err);
    assert!(ran.out.ends_with("\t4 files\n"), "{}", ran.out);
    assert_eq!(server.names("in/here"), ["a", "b", "empty"]);
    let put = ["put", here.to_str().unwrap(), &server.uri("in/"), "--json"];
    let lines = home.iq(&put).await.json();
    let put = lines.last().unwrap();
    assert_eq!(put["type"], "put", "{lines:?}");
    assert_eq!(put["skipped"][0]["path"], "link", "{put}");
    assert!(put["skipped"][0]["reason"].is_string(), "{put}");

    let got = home.0.join("got");
    let got = got.to_str().unwrap();
    home.iq(&["get", &server.uri("in/here"), got]).await.data();
    for name in ["a", "b/c", "b/d/e", "b/d/f"] {
        let (there, here) = (home.0.join("got").join(name), here.join(name));
        assert!(
            fs::read(there).unwrap() == fs::read(here).unwrap(),
            "{name}"
        );
    }
    assert!(home.0.join("got/empty").is_dir());

    let again = home
        .iq(&["put", here.to_str().unwrap(), &server.uri("in/")])
        .await;
    assert!(
        again.out.ends_with("\t0 files, 4 unchanged\n"),
        "{}",
        again.out
    );
    // Files that exist already are not sent again.
    let again = ["put", "--json", here.to_str().unwrap(), &server.uri("in/")];
    let ran = home.iq(&again).await;
    let lines = crate::common::json_lines(&ran.out);
    let done = lines.last().unwrap();
    assert_eq!(
        (&done["unchanged"], &done["transferred"]),
        (&4.into(), &0.into()),
        "{done}"
    );
}

#[tokio::test]
async fn several_sources_go_into_a_folder() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let (a, b) = (home.write("here/a", "1"), home.write("here/b", "22"));
    let ran = home.iq(&["put", &a, &b, &server.uri("in")]).await.data();
    assert_eq!(ran.lines().count(), 2, "{ran}");
    assert_eq!(server.names("in"), ["a", "b"]);
    let ran = home.iq(&["put", &a, "/nowhere", &server.uri("")]).await;
    assert!(ran.err.contains("/nowhere"), "{}", ran.err);
    assert_eq!(server.names(""), ["a", "in"]);
}

#[tokio::test]
async fn sources_that_would_replace_each_other_are_refused_before_anything_is_sent() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let (a, b) = (home.write("a/same", "1"), home.write("b/same", "2"));
    let error = home
        .iq(&["put", &a, &b, &server.uri("in/")])
        .await
        .failed(2);
    assert!(error.contains(&a) && error.contains(&b), "{error}");
    assert!(server.names("").is_empty());
}

#[tokio::test]
async fn streams_are_not_taken_for_files() {
    let home = Home::new();
    for args in [["put", "-", "localhost:1/a"], ["get", "localhost:1/a", "-"]] {
        let error = home.iq(&args).await.failed(2);
        assert!(error.contains("not supported"), "{error}");
    }
}

#[tokio::test]
async fn names_move_no_cursor_and_folders_of_the_target_are_created() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let file = home.write("a\n\u{1b}[31mb", "x");
    let put = home.iq(&["put", &file, &server.uri("")]).await.data();
    assert!(put.contains("a\\n\\u{1b}[31mb\t1 bytes"), "{put}");
    let (uri, below) = (server.uri("a\n\u{1b}[31mb"), home.0.join("new/below/"));
    let got = home
        .iq(&["get", &uri, below.to_str().unwrap()])
        .await
        .data();
    assert!(got.starts_with("a\\n\\u{1b}[31mb\t"), "{got}");
    assert!(below.join("a\n\u{1b}[31mb").exists());
}

#[tokio::test]
async fn a_server_is_read_only_without_write() {
    let home = Home::new();
    let server = Serve::start(&home, &[]).await;
    fs::write(server.folder.join("file"), "data").unwrap();
    let file = home.write("here/file", "other");
    for (go, wanted) in [(&["--go"][..], "read-only"), (&[], "--write")] {
        let uri = server.uri("file");
        let put = home.iq(&[&["put", &file, &uri], go].concat()).await;
        assert!(put.err.contains(wanted), "{}", put.err);
        assert_ne!(put.code, Some(0));
        assert_eq!(fs::read(server.folder.join("file")).unwrap(), b"data");
        assert_eq!(server.names(""), ["file"]);
    }
    let got = home.0.join("got");
    home.iq(&["get", &server.uri("file"), got.to_str().unwrap()])
        .await
        .data();
    assert_eq!(fs::read(got).unwrap(), b"data");
}

#[tokio::test]
async fn nothing_outside_of_the_folder_is_reached() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let secret = home.write("secret", "secret");
    std::os::unix::fs::symlink(&home.0, server.folder.join("link")).unwrap();
    for path in ["../secret", "a/../../secret", "link/secret"] {
        for go in [&["--go"][..], &[]] {
            let uri = server.uri(path);
            let got = home.0.join("got");
            let get = [&["get", &uri, got.to_str().unwrap()], go].concat();
            let ran = home.iq(&get).await;
            assert!(ran.code > Some(64), "{path}: {}", ran.err);
            let file = home.write("here/file", "other");
            let ran = home.iq(&[&["put", &file, &uri], go].concat()).await;
            assert!(ran.code > Some(64), "{path}: {}", ran.err);
            assert!(!got.exists());
        }
    }
    assert_eq!(fs::read(secret).unwrap(), b"secret");
    assert_eq!(server.names(""), ["link"]);
}

#[tokio::test]
async fn a_missing_file_is_not_found() {
    let home = Home::new();
    let server = Serve::start(&home, &[]).await;
    let got = home.0.join("got");
    let get = ["get", &server.uri("nothing"), got.to_str().unwrap()];
    let error = home.iq(&get).await.failed(69);
    assert!(error.contains("nothing"), "{error}");
    let get = ["get", "--go", &server.uri("nothing"), got.to_str().unwrap()];
    let error = home.iq(&get).await.failed(66);
    assert!(
        error.contains("open /nothing: no such file or directory"),
        "{error}"
    );
    assert!(!got.exists());
}

#[tokio::test]
async fn a_server_without_files_is_told_apart_from_one_of_go() {
    let (shop, home) = (crate::common::Fixture::new().await, Home::new());
    let uri = format!("{}/file", shop.target);
    let error = home.iq(&["get", &uri, "-t", LONG]).await.failed(76);
    assert!(error.contains("--go"), "{error}");
    let error = home.iq(&["get", "--go", &uri, "-t", LONG]).await.failed(76);
    assert!(error.contains("without --go"), "{error}");
    let error = home.iq(&["get", &shop.target]).await.failed(2);
    assert!(error.contains("TARGET/PATH"), "{error}");
}

#[tokio::test]
async fn files_go_to_and_from_the_paths_of_go() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let data = bytes(3_000_000);
    let file = home.write("here/file", &data);
    let put = home.iq(&["put", "--go", &file, &server.uri("copy")]).await;
    assert_eq!(put.data(), format!("{file}\t3000000 bytes\t1 file\n"));
    assert!(fs::read(server.folder.join("copy")).unwrap() == data);
    // Go clients name files by their paths on the server.
    let absolute = format!("{}{}", server.address, server.folder.join("copy").display());
    let got = home.0.join("got");
    for uri in [server.uri("copy"), absolute] {
        home.iq(&["get", "--go", &uri, got.to_str().unwrap()])
            .await
            .data();
        assert!(fs::read(&got).unwrap() == data);
        fs::remove_file(&got).unwrap();
    }
}

#[tokio::test]
async fn a_server_ends_in_order_and_says_what_it_serves() {
    let home = Home::new();
    for (args, mode) in [(&[][..], "read only"), (&["--write"], "read and write")] {
        let server = Serve::start(&home, args).await;
        assert!(
            server.address.starts_with("127.0.0.1:"),
            "{}",
            server.address
        );
        let said = format!("{}\t{}\t{mode}", server.address, server.folder.display());
        assert_eq!(server.said, said);
        server.end().await;
    }
    let nowhere = home.0.join("nowhere");
    let error = home
        .iq(&["serve", nowhere.to_str().unwrap()])
        .await
        .failed(2);
    assert!(error.contains("nowhere"), "{error}");
    let here = home.0.to_str().unwrap();
    let error = home
        .iq(&["serve", here, "--listen", "nonsense"])
        .await
        .failed(1);
    assert!(error.contains("--listen"), "{error}");
    let error = home
        .iq(&["serve", here, "--limit-rate", "fast"])
        .await
        .failed(2);
    assert!(error.contains("500MiB"), "{error}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_server_with_a_certificate_needs_tls() {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    let home = Home::new();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let cert = home.write("cert.pem", cert.pem());
    let key = home.write("key.pem", signing_key.serialize_pem());
    let server = Serve::start(&home, &["--write", "--cert", &cert, "--key", &key]).await;
    let file = home.write("here/file", "data");
    let uri = server.uri("copy");
    home.iq(&["put", &file, &uri, "--ca", &cert, "-t", LONG])
        .await
        .data();
    assert_eq!(fs::read(server.folder.join("copy")).unwrap(), b"data");
    let plain = home.iq(&["put", &file, &uri, "-t", LONG]).await;
    assert_eq!(plain.code, Some(3), "{}", plain.err);
    let here = home.0.to_str().unwrap();
    let error = home.iq(&["serve", here, "--cert", &cert]).await.failed(2);
    assert!(error.contains("--key"), "{error}");

    // With --ca, clients also need a certificate.
    let args = ["--cert", &cert, "--key", &key, "--ca", &cert];
    let server = Serve::start(&home, &args).await;
    let uri = server.uri("nothing");
    let without = home.iq(&["get", &uri, "--ca", &cert, "-t", LONG]).await;
    assert_eq!(without.code, Some(3), "{}", without.err);
}
