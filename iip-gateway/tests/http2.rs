//! HTTP/2 with prior knowledge: requests, and floods of frames.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use iip_gateway::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Backend, all_run, before, bound, passes, serves, until, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Returns an HTTP/2 frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a header block without compression: GET, http, the path, and the authority `a`.
pub(crate) fn get_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x41, 1, b'a']);
    block
}

/// Opens a connection and sends the preface and empty settings.
pub(crate) async fn raw(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    stream.write_all(&begin).await.unwrap();
    stream
}

/// Sends the bytes repeatedly until the gateway closes the connection.
pub(crate) async fn flood(stream: TcpStream, mut next: impl FnMut() -> Vec<u8>) {
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    within("the end of the flood", async {
        while writer.write_all(&next()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("the end of the connection", reading).await.unwrap();
}

#[tokio::test]
async fn requests_of_http2_are_calls_too() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    for body in ["", "posted body", &"x".repeat(300_000)] {
        let request = Request::post("http://a/echo?x=1")
            .version(Version::HTTP_2)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = within("a reply", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let reply = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(reply, if body.is_empty() { "{}" } else { body });
    }
    // Cookies are one header, as in Go: {"Content-Length":["0"],"Cookie":["a=1; b=2"]}
    let headers = "eyJDb250ZW50LUxlbmd0aCI6WyIwIl0sIkNvb2tpZSI6WyJhPTE7IGI9MiJdfQ==";
    assert_eq!(
        backend.seen()[0],
        format!("/echo?x=1&__http_hdr__={headers}")
    );
    let request = Request::get("http://a/nul%00")
        .body(Full::default())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_client_that_resets_its_requests_is_closed() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_resets(50);
    let (_gateway, address) = bound(before(&backend).limits(limits)).await;
    let mut stream = 1;
    let next = || {
        let headers = frame(1, 0x5, stream, &get_block("/wait"));
        let reset = frame(3, 0, stream, &8u32.to_be_bytes());
        stream += 2;
        [headers, reset].concat()
    };
    flood(raw(address).await, next).await;
    serves(address).await;
}

#[tokio::test]
async fn a_client_that_resets_running_requests_is_closed() {
    let backend = Backend::new().await;
    let limits = Limits::new().max_resets(20);
    let (_gateway, address) = bound(before(&backend).limits(limits)).await;
    let mut stream = raw(address).await;
    for index in 0..60_u32 {
        let id = index * 2 + 1;
        let before = backend.seen().len();
        if stream
            .write_all(&frame(1, 0x5, id, &get_block("/wait")))
            .await
            .is_err()
        {
            break;
        }
        // Only requests that have reached the backend count.
        let arrived = || backend.seen().len() > before;
        let mut turns = 0;
        while !arrived() && turns < 20_000 {
            tokio::task::yield_now().await;
            turns += 1;
        }
        let _ = stream
            .write_all(&frame(3, 0, id, &8u32.to_be_bytes()))
            .await;
    }
    let mut rest = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut rest)).await;
    assert!(backend.seen().len() < 60, "{}", backend.seen().len());
    serves(address).await;
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_only() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    // A head that never ends.
    let stream = raw(address).await;
    let mut first = true;
    let never_ends = || {
        let kind = if std::mem::take(&mut first) { 1 } else { 9 };
        frame(kind, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(200))
    };
    flood(stream, never_ends).await;
    serves(address).await;
    // Data for a stream that does not exist.
    let stream = raw(address).await;
    flood(stream, || frame(0, 0, 7, b"x")).await;
    serves(address).await;
    // Frames that are too large.
    let stream = raw(address).await;
    flood(stream, || frame(0, 0, 1, &[0; 20_000])).await;
    serves(address).await;
}

#[tokio::test]
async fn pings_do_not_keep_a_connection_of_http2_open() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut stream = raw(address).await;
    until("the connection", || gateway.connections() == 1).await;
    for _ in 0..12 {
        let _ = stream.write_all(&frame(6, 0, 0, &[0; 8])).await;
        passes(Duration::from_secs(1)).await;
        all_run().await;
    }
    until("its end", || gateway.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_is_closed() {
    let backend = Backend::new().await;
    let (gateway, address) = bound(before(&backend)).await;
    let mut stream = raw(address).await;
    stream
        .write_all(&frame(1, 0x5, 1, &get_block("/large")))
        .await
        .unwrap();
    until("the request", || backend.seen().len() == 1).await;
    within("the end", async {
        while gateway.connections() > 0 {
            let _ = stream.write_all(&frame(6, 0, 0, &[0; 8])).await;
            passes(Duration::from_secs(5)).await;
            all_run().await;
        }
    })
    .await;
    serves(address).await;
}
