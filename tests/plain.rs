//! Plain mode, in both directions: typed services called with handwritten bytes, and a server like
//! the Go one called by the typed client.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;

use bytes::Bytes;
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallContext, CallOptions, Client, Code, Execution, MethodError, Schema, Server, Status, service,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::common::calls::expect;
use crate::common::frame::RawFrame;
use crate::common::{spawn, within};

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum ShopError {
    #[error("sold out until {until}")]
    SoldOut { until: String },
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Item {
    name: String,
    #[serde(default)]
    price: Option<u32>,
}

#[service]
trait Shop {
    async fn add(&self, a: i64, b: i64) -> Result<i64, Status>;
    async fn square(&self, number: i64) -> Result<i64, Status>;
    async fn label(&self, item: Item) -> Result<Item, Status>;
    async fn nothing(&self) -> Result<(), Status>;
    async fn maybe(&self, first: Option<u8>, second: Option<String>) -> Result<String, Status>;
    async fn buy(&self, name: String) -> Result<Item, ShopError>;
    async fn refuse(&self) -> Result<(), Status>;
    async fn panic(&self) -> Result<(), Status>;
    async fn time_left(&self, ctx: &CallContext) -> Result<bool, Status>;
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
    #[rpc(path = "/fail", raw)]
    async fn fail(&self, body: Vec<u8>) -> Result<Vec<u8>, Status>;
    #[rpc(path = "/v1/price", json)]
    async fn price(&self, name: &str, count: u32) -> Result<Item, ShopError>;
}

struct Corner;

impl Shop for Corner {
    async fn add(&self, a: i64, b: i64) -> Result<i64, Status> {
        Ok(a + b)
    }

    async fn square(&self, number: i64) -> Result<i64, Status> {
        Ok(number * number)
    }

    async fn label(&self, item: Item) -> Result<Item, Status> {
        Ok(item)
    }

    async fn nothing(&self) -> Result<(), Status> {
        Ok(())
    }

    async fn maybe(&self, first: Option<u8>, second: Option<String>) -> Result<String, Status> {
        Ok(format!("{first:?} {second:?}"))
    }

    async fn buy(&self, name: String) -> Result<Item, ShopError> {
        match name.as_str() {
            "bread" => Ok(Item {
                name,
                price: Some(3),
            }),
            "moon" => Err(ShopError::Rpc(Status::not_found("no <moon> & \"stars\""))),
            _ => Err(ShopError::SoldOut {
                until: "monday".into(),
            }),
        }
    }

    async fn refuse(&self) -> Result<(), Status> {
        Err(Status::permission_denied("not for you"))
    }

    async fn panic(&self) -> Result<(), Status> {
        panic!("a secret")
    }

    async fn time_left(&self, ctx: &CallContext) -> Result<bool, Status> {
        Ok(ctx.deadline().is_some())
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn fail(&self, _: Vec<u8>) -> Result<Vec<u8>, Status> {
        Err(Status::internal("boom"))
    }

    async fn price(&self, name: &str, count: u32) -> Result<Item, ShopError> {
        match count {
            0 => Err(ShopError::SoldOut {
                until: "tuesday".into(),
            }),
            _ => Ok(Item {
                name: name.to_owned(),
                price: Some(count),
            }),
        }
    }
}

async fn shop() -> Server {
    Server::builder()
        .service(ShopServer::new(Corner))
        .bind("127.0.0.1:0")
        .await
        .unwrap()
}

/// A client that is only a socket.
struct ByHand {
    stream: TcpStream,
    buffer: Vec<u8>,
    channel: u32,
}

impl ByHand {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let mut by_hand = Self {
            stream,
            buffer: Vec::new(),
            channel: 0,
        };
        let grant = by_hand.call("/sys/new_channel", "{}").await;
        let grant: Value = serde_json::from_slice(&grant).unwrap();
        by_hand.channel = grant["channel_id"].as_u64().unwrap() as u32;
        by_hand
    }

    async fn call(&mut self, path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        let request = RawFrame::request(path, self.channel, body).encode();
        within("writing", self.stream.write_all(&request))
            .await
            .unwrap();
        loop {
            if let Some((frame, len)) = RawFrame::decode(&self.buffer) {
                self.buffer.drain(..len);
                assert_eq!(
                    (frame.status, frame.path_text().as_str(), frame.channel),
                    (5, path, self.channel)
                );
                return frame.body;
            }
            let read = within("a reply", self.stream.read_buf(&mut self.buffer)).await;
            assert_ne!(read.unwrap(), 0, "the server closed");
        }
    }

    async fn text(&mut self, path: &str, body: &str) -> String {
        String::from_utf8(self.call(path, body).await).unwrap()
    }
}

#[tokio::test]
async fn plain_json_requests_get_plain_json_replies() {
    let server = shop().await;
    let mut peer = ByHand::connect(server.local_addr().unwrap()).await;
    for (path, body, reply) in [
        ("/shop/add", r#"{"a":2,"b":-5}"#, "-3"),
        ("/shop/add", r#" { "b" : 1 , "a" : 1 } "#, "2"),
        // One argument: by name, or the bare value.
        ("/shop/square", r#"{"number":7}"#, "49"),
        ("/shop/square", "7", "49"),
        ("/shop/square", "-7\n", "49"),
        (
            "/shop/label",
            r#"{"item":{"name":"a"}}"#,
            r#"{"name":"a","price":null}"#,
        ),
        (
            "/shop/label",
            r#"{"name":"a","price":1}"#,
            r#"{"name":"a","price":1}"#,
        ),
        ("/shop/nothing", "{}", "null"),
        ("/shop/nothing", "null", "null"),
        ("/shop/maybe", "{}", r#""None None""#),
        (
            "/shop/maybe",
            r#"{"second":"x","first":null}"#,
            r#""None Some(\"x\")""#,
        ),
        ("/shop/buy", r#""bread""#, r#"{"name":"bread","price":3}"#),
        ("/shop/time_left", "{}", "false"),
        (
            "/v1/price",
            r#"{"name":"tea","count":4}"#,
            r#"{"name":"tea","price":4}"#,
        ),
    ] {
        assert_eq!(peer.text(path, body).await, reply, "{path} {body}");
    }
}

#[tokio::test]
async fn failures_of_plain_calls_are_plain_json_with_code_and_message() {
    let server = shop().await;
    let mut peer = ByHand::connect(server.local_addr().unwrap()).await;
    for (path, body, reply) in [
        (
            "/shop/buy",
            r#"{"name":"milk"}"#,
            json!({"code": 2, "message": "sold out until monday", "error": {"SoldOut": {"until": "monday"}}}),
        ),
        (
            "/shop/buy",
            r#"{"name":"moon"}"#,
            json!({"code": 5, "message": "no <moon> & \"stars\""}),
        ),
        (
            "/shop/refuse",
            "{}",
            json!({"code": 7, "message": "not for you"}),
        ),
        (
            "/shop/panic",
            "{}",
            json!({"code": 13, "message": "the handler panicked"}),
        ),
        (
            "/v1/price",
            r#"{"name":"tea","count":0}"#,
            json!({"code": 2, "message": "sold out until tuesday", "error": {"SoldOut": {"until": "tuesday"}}}),
        ),
    ] {
        let text = peer.text(path, body).await;
        let got: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(got, reply, "{path} {body}");
    }
}

#[tokio::test]
async fn plain_arguments_that_do_not_fit_are_rejected_with_code_3_and_the_name() {
    let server = shop().await;
    let mut peer = ByHand::connect(server.local_addr().unwrap()).await;
    for (path, body, names) in [
        ("/shop/add", r#"{"a":1}"#, "b"),
        ("/shop/add", r#"{"a":1,"b":"x"}"#, "b"),
        ("/shop/add", r#"{"a":1,"b":2,"c":3}"#, "c"),
        ("/shop/add", r#"{"a":1,"a":2,"b":3}"#, "a"),
        ("/shop/add", "[1,2]", ""),
        ("/shop/add", "7", ""),
        ("/shop/square", r#"{"nummer":7}"#, "nummer"),
        ("/shop/square", r#""seven""#, "number"),
        ("/shop/square", "7 8", ""),
        ("/shop/square", "\u{0}", ""),
        ("/shop/square", "{", ""),
        ("/shop/nothing", r#"{"x":1}"#, "x"),
    ] {
        let text = peer.text(path, body).await;
        let got: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(got["code"], 3, "{path} {body}: {text}");
        let message = got["message"].as_str().unwrap();
        assert!(message.contains(names), "{path} {body}: {text}");
    }
    // Bytes that are not a text.
    let reply = peer.call("/shop/square", [0xFF, 0xFE]).await;
    let got: Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(got["code"], 3);
    // The connection stays open.
    assert_eq!(peer.text("/shop/square", "3").await, "9");
}

#[tokio::test]
async fn an_unknown_path_gets_what_a_go_server_sends() {
    let server = shop().await;
    let mut peer = ByHand::connect(server.local_addr().unwrap()).await;
    assert_eq!(
        peer.text("/shop/missing", "{}").await,
        r#"{"code":102,"message":"handle error"}"#
    );
}

#[tokio::test]
async fn a_raw_method_takes_and_gives_bytes_as_they_are() {
    let server = shop().await;
    let mut peer = ByHand::connect(server.local_addr().unwrap()).await;
    // This includes bytes that look like an envelope and empty ones.
    for body in [
        &b"text"[..],
        b"{\"a\":1",
        &[0x80, 1, 0],
        &[0],
        &[0xFF; 5_000],
    ] {
        assert_eq!(peer.call("/echo", body).await, body);
    }
    assert_eq!(
        peer.text("/fail", "x").await,
        r#"{"code":-1,"message":"handler fail:boom"}"#
    );
    // The query of a path is not part of its name.
    let request = RawFrame::request("/echo?x=1", peer.channel, "q").encode();
    peer.stream.write_all(&request).await.unwrap();
    let mut reply = vec![0; RawFrame::reply("/echo", 1, "q").encode().len()];
    within("a reply", peer.stream.read_exact(&mut reply))
        .await
        .unwrap();
    assert_eq!(reply, RawFrame::reply("/echo", peer.channel, "q").encode());
}

#[tokio::test]
async fn raw_and_json_methods_work_between_typed_peers() {
    let server = shop().await;
    let shop = ShopClient::new(Client::connect(server.target()).await.unwrap());
    let echo = shop.echo(Bytes::from_static(&[0x80, 0, 255])).await;
    assert_eq!(echo.unwrap()[..], [0x80, 0, 255]);
    let price = shop.price("tea", 4).await.unwrap();
    assert_eq!((price.name.as_str(), price.price), ("tea", Some(4)));
    assert_eq!(
        shop.price("tea", 0).await,
        Err(ShopError::SoldOut {
            until: "tuesday".into()
        })
    );
    let failure = shop.fail(vec![1]).await.unwrap_err();
    assert_eq!(
        (failure.code(), failure.message()),
        (Code::Unknown, "handler fail:boom")
    );
}

#[tokio::test]
async fn a_raw_call_without_data_is_rejected_and_not_sent() {
    let server = shop().await;
    let shop = ShopClient::new(Client::connect(server.target()).await.unwrap());
    let status = shop.echo(Bytes::new()).await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotSent);
}

/// A server that speaks IIP like the Go one, without hello and envelopes. The script replies to
/// every request.
struct GoLike {
    addr: SocketAddr,
    /// Path and data of every request that does not belong to the protocol.
    requests: mpsc::UnboundedReceiver<RawFrame>,
    _task: tokio::task::JoinHandle<()>,
}

impl GoLike {
    async fn start(script: fn(&str, &[u8]) -> Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let task = spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawn(Self::speak(stream, script, sender.clone()));
            }
        });
        Self {
            addr,
            requests,
            _task: task,
        }
    }

    async fn speak(
        mut stream: TcpStream,
        script: fn(&str, &[u8]) -> Vec<u8>,
        requests: mpsc::UnboundedSender<RawFrame>,
    ) {
        let (mut buffer, mut granted) = (Vec::new(), 0);
        loop {
            while let Some((frame, len)) = RawFrame::decode(&buffer) {
                buffer.drain(..len);
                // Such a server calls its handler once per frame: a request must be one frame.
                assert_eq!(frame.status, 1, "{frame:?}");
                let reply = match frame.path_text().as_str() {
                    "/sys/new_channel" => {
                        granted += 1;
                        RawFrame::grant(granted)
                    }
                    path if path.starts_with("/sys/") => RawFrame::reply(
                        path,
                        frame.channel,
                        r#"{"code":102,"message":"handle error"}"#,
                    ),
                    path => {
                        assert!((1..=granted).contains(&frame.channel), "{frame:?}");
                        let reply = RawFrame::reply(path, frame.channel, script(path, &frame.body));
                        let _ = requests.send(frame);
                        reply
                    }
                };
                if stream.write_all(&reply.encode()).await.is_err() {
                    return;
                }
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    async fn client(&self) -> Client {
        within("connecting", Client::connect(self.addr.to_string()))
            .await
            .unwrap()
    }

    async fn request(&mut self) -> (String, Vec<u8>) {
        let frame = within("a request", self.requests.recv()).await.unwrap();
        (frame.path_text(), frame.body)
    }
}

#[tokio::test]
async fn a_typed_call_to_a_go_server_is_plain_json() {
    let mut go = GoLike::start(|path, body| {
        let body: Value = serde_json::from_slice(body).expect("plain JSON");
        match path {
            "/shop/add" => json!(body["a"].as_i64().unwrap() + body["b"].as_i64().unwrap()),
            "/shop/label" => body["item"].clone(),
            _ => Value::Null,
        }
        .to_string()
        .into_bytes()
    })
    .await;
    // A plain call carries no metadata; its deadline is kept on this side.
    let options = CallOptions::new().metadata("x-user", "ann").unwrap();
    let shop = ShopClient::new(go.client().await).with_options(options);
    assert_eq!(within("a reply", shop.add(40, 2)).await, Ok(42));
    let (path, body) = go.request().await;
    assert_eq!(path, "/shop/add");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body, json!({"a": 40, "b": 2}));
    let item = Item {
        name: "a".into(),
        price: None,
    };
    assert_eq!(within("a reply", shop.label(item.clone())).await, Ok(item));
    go.request().await;
    assert_eq!(within("a reply", shop.nothing()).await, Ok(()));
    let (path, body) = go.request().await;
    assert_eq!((path.as_str(), &body[..]), ("/shop/nothing", &b"{}"[..]));
}

#[tokio::test]
async fn raw_and_json_methods_call_a_go_server_on_its_own_paths() {
    let mut go = GoLike::start(|path, body| match path {
        "/echo" => body.to_vec(),
        "/v1/price" => br#"{"name":"tea","price":9,"more":true}"#.to_vec(),
        _ => br#"{"code":-1,"message":"handler fail:boom"}"#.to_vec(),
    })
    .await;
    let shop = ShopClient::new(go.client().await);
    let data = Bytes::from_static(&[0x80, 0, 255]);
    let echo = within("a reply", shop.echo(data.clone())).await;
    assert_eq!(echo.unwrap(), data);
    assert_eq!(go.request().await, ("/echo".to_owned(), data.to_vec()));
    let price = within("a reply", shop.price("tea", 2)).await.unwrap();
    assert_eq!(price.price, Some(9));
    let (path, body) = go.request().await;
    assert_eq!(path, "/v1/price");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body, json!({"name": "tea", "count": 2}));
    let failure = within("a reply", shop.fail(vec![1])).await.unwrap_err();
    assert_eq!(
        (failure.code(), failure.execution(), failure.message()),
        (
            Code::Unknown,
            Execution::MayHaveExecuted,
            "handler fail:boom"
        )
    );
}

#[tokio::test]
async fn the_in_band_errors_of_a_go_server_become_statuses() {
    let go = GoLike::start(|path, _| {
        match path {
            "/shop/add" => r#"{"code":102,"message":"handle error"}"#,
            "/shop/nothing" => r#"{"code":101,"message":"handle no response"}"#,
            "/shop/square" => r#"{"code":-1,"message":"handler fail:boom"}"#,
            _ => r#"{"code":2,"message":"sold out until may","error":{"SoldOut":{"until":"may"}}}"#,
        }
        .into()
    })
    .await;
    let shop = ShopClient::new(go.client().await);
    let status = within("a reply", shop.add(1, 2)).await.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    let status = within("a reply", shop.nothing()).await.unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    let status = within("a reply", shop.square(1)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "handler fail:boom")
    );
    assert_eq!(
        within("a reply", shop.buy("x".into())).await,
        Err(ShopError::SoldOut {
            until: "may".into()
        })
    );
}

#[tokio::test]
async fn a_reply_of_a_go_server_that_cannot_be_decoded_is_internal() {
    let go = GoLike::start(|_, _| b"\"no number\"".to_vec()).await;
    let shop = ShopClient::new(go.client().await);
    let status = within("a reply", shop.square(1)).await.unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    assert!(status.message().starts_with("Shop.square: "), "{status}");
    assert!(status.phases().is_some(), "{status:?}");
}

#[tokio::test]
async fn many_calls_to_a_go_server_share_its_channels() {
    let go = GoLike::start(|_, body| {
        let body: Value = serde_json::from_slice(body).expect("plain JSON");
        let number = body["number"].as_i64().unwrap();
        (number * number).to_string().into_bytes()
    })
    .await;
    let shop = ShopClient::new(go.client().await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let shop = shop.clone();
        calls.spawn(async move { assert_eq!(shop.square(number).await, Ok(number * number)) });
    }
    within("all replies", calls.join_all()).await;
}

#[tokio::test]
async fn a_request_to_a_go_server_is_always_one_frame() {
    // The script asserts that every request is one frame.
    let mut go = GoLike::start(|_, body| body.len().to_string().into_bytes()).await;
    let shop = ShopClient::new(go.client().await);
    let data = Bytes::from(vec![b'1'; 5 * 1024 * 1024]);
    let reply = within("a reply", shop.echo(data.clone())).await.unwrap();
    assert_eq!(reply, data.len().to_string());
    assert_eq!(go.request().await.1.len(), data.len());
}

/// Returns the output of a shell's `printf` for this argument: `\ooo` is a byte in octal.
fn printed(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'\\' {
            let (digits, behind) = behind.split_at(3);
            let digits = std::str::from_utf8(digits).unwrap();
            bytes.push(u8::from_str_radix(digits, 8).unwrap());
            rest = behind;
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    bytes
}

#[tokio::test]
async fn the_shell_command_of_the_guide_makes_a_call_and_gets_a_reply() {
    mod readme {
        use iip_rpc::{Status, service};

        #[service]
        pub(super) trait Greeter {
            async fn hello(&self, name: String) -> Result<String, Status>;
        }

        pub(super) struct Polite;

        impl Greeter for Polite {
            async fn hello(&self, name: String) -> Result<String, Status> {
                Ok(format!("hello, {name}"))
            }
        }
    }
    let page = include_str!("../docs/guide/go.md");
    let line = page.lines().find(|line| line.starts_with("printf '"));
    let (_, line) = line.unwrap().split_once('\'').unwrap();
    let (text, command) = line.split_once('\'').unwrap();
    assert_eq!(command, " | nc -N 127.0.0.1 7070");

    let greeter = readme::GreeterServer::new(readme::Polite);
    let server = Server::builder().service(greeter).bind("127.0.0.1:0");
    let server = server.await.unwrap();
    let socket = TcpStream::connect(server.local_addr().unwrap()).await;
    let mut socket = socket.unwrap();
    socket.write_all(&printed(text)).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut reply = Vec::new();
    let reading = socket.read_to_end(&mut reply);
    within("the reply and the end", reading).await.unwrap();
    let expected = b"\x05/greeter/hello\0\0\0\0\0\0\0\0\x0e\"hello, world\"";
    assert_eq!(reply, expected, "{}", reply.escape_ascii());
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<ShopError>().unwrap();
    check_derived::<Item>().unwrap();
}
