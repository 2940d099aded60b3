//! Every kind of stream, and what happens when an address is dead, taken or wrong.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::endpoint::{HEAD_START, first_to_connect};
use super::*;

async fn listen(text: &str) -> (Listener, Endpoint) {
    let listener = Listener::bind(&text.parse().unwrap()).await.unwrap();
    let endpoint = listener.describe().parse().unwrap();
    (listener, endpoint)
}

async fn exchange(near: &mut IoStream, far: &mut IoStream) {
    let slices = [io::IoSlice::new(b"he"), io::IoSlice::new(b"llo")];
    assert!(near.is_write_vectored());
    assert_eq!(near.write_vectored(&slices).await.unwrap(), 5);
    near.flush().await.unwrap();
    near.shutdown().await.unwrap();
    let mut received = String::new();
    far.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "hello");
    far.write_all(b"back").await.unwrap();
    let mut reply = [0; 4];
    near.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"back");
}

#[test]
fn endpoints_are_read_and_written() {
    let table = [
        ("127.0.0.1:9000", "127.0.0.1:9000", Some("127.0.0.1")),
        ("localhost:0", "localhost:0", Some("localhost")),
        ("tcp://h:65535", "h:65535", Some("h")),
        ("[::1]:1", "[::1]:1", Some("::1")),
        ("tcp://[::1]:1", "[::1]:1", Some("::1")),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1", Some("fe80::1%eth0")),
        ("unix:/run/iip", "unix:/run/iip", None),
        ("unix:///run/iip", "unix:/run/iip", None),
        ("unix:relative", "unix:relative", None),
        #[cfg(target_os = "linux")]
        ("unix:@name", "unix:@name", None),
        ("unix:./@name", "unix:./@name", None),
    ];
    for (text, shown, host) in table {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint.to_string(), shown);
        assert_eq!(endpoint.host(), host);
        assert_eq!(shown.parse::<Endpoint>().unwrap(), endpoint);
    }
    for addr in ["127.0.0.1:9000", "[::1]:9000", "[fe80::1%3]:9000"] {
        let endpoint = Endpoint::from(addr.parse::<SocketAddr>().unwrap());
        assert_eq!(endpoint.to_string(), addr);
    }
}

#[test]
fn a_bad_endpoint_is_refused_with_what_to_write_instead() {
    let table = [
        ("", "address is empty, write `host:port` or `unix:/path`"),
        (
            "localhost",
            "address `localhost` has no port, write `localhost:9000`",
        ),
        ("[::1]", "address `[::1]` has no port, write `[::1]:9000`"),
        (
            "h:",
            "port `` of address `h:` is not a number from 0 to 65535",
        ),
        (
            "h:http",
            "port `http` of address `h:http` is not a number from 0 to 65535",
        ),
        (
            "h:65536",
            "port `65536` of address `h:65536` is not a number from 0 to 65535",
        ),
        (
            "h:+80",
            "port `+80` of address `h:+80` is not a number from 0 to 65535",
        ),
        (
            "h:80/",
            "port `80/` of address `h:80/` is not a number from 0 to 65535",
        ),
        (
            ":80",
            "address `:80` has no host, write `0.0.0.0:port` or `[::]:port` to listen on every \
             interface",
        ),
        (
            "::1:80",
            "host of address `::1:80` is not valid, write an IPv6 address as `[::1]:port`",
        ),
        (
            "[h]:80",
            "host of address `[h]:80` is not valid, write an IPv6 address as `[::1]:port`",
        ),
        (
            "[::1:80",
            "host of address `[::1:80` is not valid, write an IPv6 address as `[::1]:port`",
        ),
        (
            "http://h:80",
            "address `http://h:80` starts with `http://`, only `tcp://` and `unix:` are supported",
        ),
        ("unix:", "address `unix:` has no path, write `unix:/path`"),
    ];
    for (text, expected) in table {
        assert_eq!(
            text.parse::<Endpoint>().unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
}

#[tokio::test]
async fn tcp_carries_bytes_both_ways_without_delay() {
    let (mut listener, endpoint) = listen("127.0.0.1:0").await;
    assert_ne!(listener.local_addr().unwrap().port(), 0);
    let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.addr, listener.local_addr());
    assert_eq!(far.addr.unwrap().ip(), listener.local_addr().unwrap().ip());
    for connected in [&near, &far] {
        let Inner::Tcp(stream) = &connected.io.inner else {
            panic!("not tcp")
        };
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(stream).keepalive().unwrap());
    }
    exchange(&mut near.io, &mut far.io).await;
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_refused_and_an_address_that_is_not_the_target_is_named() {
    let (listener, endpoint) = listen("127.0.0.1:0").await;
    drop(listener);
    let error = endpoint.connect().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let error = error.to_string();
    assert!(!error.contains(&endpoint.to_string()), "{error}");
    let Endpoint::Tcp { port, .. } = endpoint else {
        panic!("not tcp")
    };
    let by_name = format!("localhost:{port}").parse::<Endpoint>().unwrap();
    let error = by_name.connect().await.unwrap_err().to_string();
    let named = error
        .split_once(": ")
        .map(|(addr, _)| addr.parse::<SocketAddr>());
    assert!(matches!(named, Some(Ok(_))), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let (_listener, endpoint) = listen("127.0.0.1:0").await;
    let error = Listener::bind(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen on {endpoint}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn memory_carries_bytes_both_ways_and_ends_with_its_listener() {
    let (connector, listener) = memory();
    let mut listener = Listener::from(listener);
    let mut near = connector.connect().await.unwrap();
    let mut far = listener.accept().await.unwrap();
    exchange(&mut near.io, &mut far.io).await;
    drop(listener);
    let error = connector.connect().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn memory_connections_beyond_the_backlog_wait_for_room() {
    let (connector, listener) = memory();
    let mut listener = Listener::from(listener);
    let mut held = Vec::new();
    for _ in 0..BACKLOG {
        held.push(connector.connect().await.unwrap());
    }
    tokio::time::timeout(Duration::from_secs(1), connector.connect())
        .await
        .unwrap_err();
    listener.accept().await.unwrap();
    connector.connect().await.unwrap();
}

#[tokio::test]
async fn a_stream_of_ones_own_carries_bytes() {
    let (near, far) = tokio::io::duplex(64);
    exchange(&mut IoStream::new(near), &mut IoStream::new(far)).await;
}

fn addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_is_overtaken_by_the_next() {
    let start = Instant::now();
    let connected = first_to_connect(addresses(3), |addr| async move {
        match addr.port() {
            1 => std::future::pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    });
    assert_eq!(connected.await.unwrap(), 3);
    assert_eq!(start.elapsed(), HEAD_START);
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_address_still_wins_over_dead_ones() {
    let connected = first_to_connect(addresses(3), |addr| async move {
        match addr.port() {
            1 => {
                tokio::time::sleep(HEAD_START * 8).await;
                Ok(1)
            }
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    });
    assert_eq!(connected.await.unwrap(), 1);
}

#[tokio::test]
async fn when_every_address_fails_the_last_failure_is_told() {
    let connected = first_to_connect(addresses(2), |_| async {
        io::Result::<()>::Err(io::ErrorKind::ConnectionRefused.into())
    });
    let error = connected.await.unwrap_err();
    assert_eq!(error.to_string(), "127.0.0.1:2: connection refused");
    let none = first_to_connect(Vec::new(), TcpStream::connect)
        .await
        .unwrap_err();
    assert_eq!(none.to_string(), "the name has no address");
}

#[cfg(unix)]
mod unix {
    use std::path::PathBuf;

    use super::*;

    /// A directory of its own that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("iip-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn endpoint(&self) -> Endpoint {
            Endpoint::Unix(self.0.join("socket"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_unix_socket_carries_bytes_and_its_file_goes_with_the_listener() {
        let folder = Folder::new("carries");
        let endpoint = folder.endpoint();
        let mut listener = Listener::bind(&endpoint).await.unwrap();
        assert_eq!(listener.describe(), endpoint.to_string());
        assert_eq!(listener.local_addr(), None);
        let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!((near.addr, far.addr), (None, None));
        exchange(&mut near.io, &mut far.io).await;
        drop(listener);
        assert!(!folder.0.join("socket").exists());
        let error = endpoint.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }

    #[tokio::test]
    async fn the_file_of_a_dead_server_is_replaced() {
        let folder = Folder::new("stale");
        let endpoint = folder.endpoint();
        // Dropped without removing its file, like a killed process.
        drop(std::os::unix::net::UnixListener::bind(folder.0.join("socket")).unwrap());
        let mut listener = Listener::bind(&endpoint).await.unwrap();
        let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
        exchange(&mut near.unwrap().io, &mut far.unwrap().io).await;
    }

    #[tokio::test]
    async fn the_file_of_a_living_server_and_a_file_that_is_no_socket_stay() {
        let folder = Folder::new("living");
        let endpoint = folder.endpoint();
        let listener = Listener::bind(&endpoint).await.unwrap();
        let error = Listener::bind(&endpoint).await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("another server listens on this path"),
            "{error}"
        );
        drop(listener);
        std::fs::write(folder.0.join("socket"), "precious").unwrap();
        let error = Listener::bind(&endpoint).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(
            error
                .to_string()
                .ends_with("a file with this name exists and is not a socket"),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(folder.0.join("socket")).unwrap(),
            "precious"
        );
    }

    #[tokio::test]
    async fn a_listener_does_not_remove_the_file_of_its_successor() {
        let folder = Folder::new("successor");
        let endpoint = folder.endpoint();
        let first = Listener::bind(&endpoint).await.unwrap();
        // The second is bound elsewhere first: a removed file's inode could be given out again.
        let elsewhere = folder.0.join("elsewhere");
        let _second = std::os::unix::net::UnixListener::bind(&elsewhere).unwrap();
        std::fs::rename(&elsewhere, folder.0.join("socket")).unwrap();
        drop(first);
        assert!(folder.0.join("socket").exists());
    }
}
