//! All attacks at once, on the program.

use std::fs;
use std::net::SocketAddr;

use crate::common::{Backend, Http, serves};
use crate::dir::Dir;
use crate::program::{Running, config};
use crate::smuggling::cases;
use crate::{http2, smuggling};

/// Returns the resident memory of a process, in KiB.
fn memory_kib(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// Sends every ambiguous request, and waits until the gateway has replied or closed.
async fn smuggle(address: SocketAddr) {
    for (_, bytes, fate) in cases() {
        let mut http = Http::connect(address).await;
        http.send(&bytes).await;
        match fate {
            smuggling::Fate::Body(_) => drop(http.reply().await),
            _ => drop(http.closed().await),
        }
    }
}

/// Sends frames of HTTP/2 that are not allowed, until each connection is closed.
async fn flood(address: SocketAddr) {
    let mut stream = 1;
    let resets = || {
        let headers = http2::frame(1, 0x5, stream, &http2::get_block("/wait"));
        let reset = http2::frame(3, 0, stream, &8_u32.to_be_bytes());
        stream += 2;
        [headers, reset].concat()
    };
    http2::flood(http2::raw(address).await, resets).await;
    let mut is_first = true;
    let never_ends = || {
        let kind = if std::mem::take(&mut is_first) { 1 } else { 9 };
        http2::frame(kind, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(200))
    };
    http2::flood(http2::raw(address).await, never_ends).await;
    let too_large = || http2::frame(0, 0, 1, &[0; 20_000]);
    http2::flood(http2::raw(address).await, too_large).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_attacks_the_program_serves_within_its_memory() {
    /// For a program built without optimization, with 600 open connections.
    const MAX_KIB: u64 = 64 << 10;
    let backend = Backend::new().await;
    let dir = Dir::new();
    let path = dir.write("gateway.toml", &config(backend.server.target(), ""));
    let mut running = Running::start(&path);
    let address = running.address();
    let process = running.child.id();

    let mut open = Vec::new();
    for _ in 0..200 {
        for begin in [
            "GET /echo HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned(),
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nx".to_owned(),
            format!("GET /echo HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(15_000)),
        ] {
            let mut http = Http::connect(address).await;
            http.send(begin).await;
            open.push(http);
        }
    }
    for _ in 0..3 {
        tokio::join!(smuggle(address), flood(address), flood(address));
        serves(address).await;
    }
    let memory = memory_kib(process);
    assert!(memory < MAX_KIB, "{memory} KiB");
    drop(open);
    serves(address).await;
}
