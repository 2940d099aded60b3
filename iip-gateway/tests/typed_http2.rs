//! Streams of typed services over HTTP/2.

use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use iip_rpc::{StreamSender, Streaming};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{all_run, passes, until, within};
use crate::http2;
use crate::shop::{Order, Shop};

type Body = StreamBody<Streaming<Frame<Bytes>>>;

async fn connect(shop: &Shop) -> SendRequest<Body> {
    let stream = TcpStream::connect(shop.address).await.unwrap();
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a call with a stream of lines. Returns the sender of the lines, and the future reply.
async fn post(
    shop: &Shop,
    method: &str,
) -> (
    StreamSender<Frame<Bytes>>,
    impl Future<Output = Response<Incoming>> + use<>,
) {
    let mut sender = connect(shop).await;
    let (lines, body) = Streaming::channel(1);
    let request = Request::post(format!("http://a/shop.v1.Orders/{method}"))
        .header("content-type", "application/x-ndjson")
        .body(StreamBody::new(body))
        .unwrap();
    let reply = async move {
        within("the reply", sender.send_request(request))
            .await
            .unwrap()
    };
    (lines, reply)
}

async fn send(lines: &StreamSender<Frame<Bytes>>, text: &str) {
    lines
        .send(Frame::data(Bytes::from(text.to_owned())))
        .await
        .unwrap();
}

async fn line(body: &mut Incoming) -> String {
    let frame = within("a line", body.frame()).await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn both_directions_run_at_once() {
    let shop = Shop::new().await;
    let (lines, reply) = post(&shop, "doubled").await;
    let response = reply.await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut doubled = response.into_body();
    for number in 1..=100_u32 {
        send(&lines, &format!("{number}\n")).await;
        assert_eq!(line(&mut doubled).await, format!("{}\n", number * 2));
    }
    lines.finish();
    let rest = within("the end", doubled.collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "");
    shop.until_running(0).await;
}

#[tokio::test]
async fn a_line_that_is_no_message_ends_both_directions() {
    let shop = Shop::new().await;
    let (lines, reply) = post(&shop, "doubled").await;
    let mut doubled = reply.await.into_body();
    send(&lines, "1\n").await;
    assert_eq!(line(&mut doubled).await, "2\n");
    send(&lines, "{\n").await;
    let last = line(&mut doubled).await;
    assert!(
        last.starts_with("{\"error\":{\"code\":\"INVALID_ARGUMENT\""),
        "{last}"
    );
    assert!(last.contains("line 2: "), "{last}");
    shop.until_running(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_both_directions() {
    let shop = Shop::new().await;
    let (lines, reply) = post(&shop, "doubled").await;
    let mut doubled = reply.await.into_body();
    send(&lines, "1\n").await;
    assert_eq!(line(&mut doubled).await, "2\n");
    shop.until_running(1).await;
    drop((lines, doubled));
    shop.until_running(0).await;
}

#[tokio::test]
async fn lines_of_a_body_are_messages() {
    let shop = Shop::new().await;
    let (lines, reply) = post(&shop, "sum").await;
    let reply = tokio::spawn(reply);
    for text in ["{\"factor\":2}\n", "1\n2\n", "3"] {
        send(&lines, text).await;
    }
    lines.finish();
    let response = reply.await.unwrap();
    let sum = within("the body", response.into_body().collect())
        .await
        .unwrap();
    assert_eq!(sum.to_bytes(), "12");
}

#[tokio::test]
async fn an_idle_stream_stays_open() {
    let shop = Shop::new().await;
    let mut sender = connect(&shop).await;
    let (end, empty) = Streaming::channel(1);
    end.finish();
    let request = Request::get("http://a/shop.v1.Orders/watch");
    let request = request.body(StreamBody::new(empty)).unwrap();
    let response = within("the reply", sender.send_request(request))
        .await
        .unwrap();
    let mut body = response.into_body();
    shop.seen.topic.publish(Order { id: 1, note: None }).await;
    line(&mut body).await;
    for _ in 0..20 {
        passes(Duration::from_secs(10)).await;
        all_run().await;
    }
    shop.seen.topic.publish(Order { id: 2, note: None }).await;
    assert_eq!(line(&mut body).await, "{\"id\":2,\"note\":null}\n");
    assert_eq!(shop.gateway.connections(), 1);
}

#[tokio::test]
async fn a_client_that_has_gone_silently_ends_its_stream() {
    let shop = Shop::new().await;
    let mut stream = http2::raw(shop.address).await;
    let list = "/shop.v1.Orders/list?count=1&then=wait";
    let request = http2::frame(1, 0x5, 1, &http2::get_block(list));
    stream.write_all(&request).await.unwrap();
    shop.until_running(1).await;
    // It replies to no ping.
    for _ in 0..8 {
        passes(Duration::from_secs(10)).await;
        all_run().await;
    }
    shop.until_running(0).await;
    until("the end", || shop.gateway.connections() == 0).await;
}
