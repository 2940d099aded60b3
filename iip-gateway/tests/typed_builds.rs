//! Typed backends of several builds, and with other codecs.

use std::net::SocketAddr;
use std::time::Duration;

use iip_gateway::TypedOptions;
use iip_rpc::{Server, Status, service};

use crate::common::{Http, ask, passes, within};
use crate::shop::gateway;

mod old {
    use super::*;

    #[service(name = "Stock")]
    pub(super) trait Stock {
        async fn count(&self) -> Result<u32, Status>;
    }

    pub(super) struct Here;

    impl Stock for Here {
        async fn count(&self) -> Result<u32, Status> {
            Ok(1)
        }
    }
}

mod new {
    use super::*;

    #[service(name = "Stock")]
    pub(super) trait Stock {
        async fn count(&self) -> Result<u32, Status>;
        async fn reserve(&self, amount: u32) -> Result<u32, Status>;
    }

    pub(super) struct Here;

    impl Stock for Here {
        async fn count(&self) -> Result<u32, Status> {
            Ok(2)
        }

        async fn reserve(&self, amount: u32) -> Result<u32, Status> {
            Ok(amount)
        }
    }
}

async fn old_server(address: &str) -> Server {
    let server = Server::builder().service(old::StockServer::new(old::Here));
    server.bind(address).await.unwrap()
}

async fn new_server(address: &str) -> Server {
    let server = Server::builder().service(new::StockServer::new(new::Here));
    server.bind(address).await.unwrap()
}

/// Calls a method; returns the status and the body.
async fn call(address: SocketAddr, method: &str, args: &str) -> (u16, String) {
    let length = args.len();
    let request = format!(
        "POST /Stock/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{args}"
    );
    let reply = ask(address, request).await;
    (reply.status, reply.body)
}

#[tokio::test]
async fn methods_of_a_new_build_are_found_once_it_is_connected() {
    let server = old_server("127.0.0.1:0").await;
    let bound = server.target().to_owned();
    let (_gateway, address) = gateway(&bound, TypedOptions::new()).await;
    assert_eq!(call(address, "count", "{}").await, (200, "1".to_owned()));
    assert_eq!(call(address, "reserve", "5").await.0, 404);
    server.shutdown(Duration::from_secs(1)).await;
    drop(server);

    let _server = new_server(&bound).await;
    assert_eq!(call(address, "count", "{}").await, (200, "2".to_owned()));
    // The backend is asked at most once per second.
    passes(Duration::from_secs(1)).await;
    assert_eq!(call(address, "reserve", "5").await, (200, "5".to_owned()));
    assert_eq!(call(address, "none", "5").await.0, 404);
}

#[tokio::test]
async fn backends_of_two_builds_serve_the_methods_of_both() {
    let (old, new) = (
        old_server("127.0.0.1:0").await,
        new_server("127.0.0.1:0").await,
    );
    let target = format!("static:{},{}", old.target(), new.target());
    let (_gateway, address) = gateway(target, TypedOptions::new()).await;
    within("the method of the new build", async {
        // Until the new backend was picked for the description, and then for the call.
        while call(address, "reserve", "5").await.0 != 200 {
            passes(Duration::from_secs(1)).await;
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(call(address, "count", "{}").await.0, 200);
    }
    // A backend of the old build says that it has no such method.
    let status = call(address, "reserve", "5").await.0;
    assert!([200, 501].contains(&status), "{status}");
}

#[derive(Clone, PartialEq, prost::Message)]
struct Part {
    #[prost(string, tag = "1")]
    name: String,
}

#[service(name = "parts.v1.Parts", codec = "protobuf")]
trait Parts {
    async fn rename(&self, part: Part) -> Result<Part, Status>;
}

struct Renaming;

impl Parts for Renaming {
    async fn rename(&self, part: Part) -> Result<Part, Status> {
        let name = part.name;
        match &*name {
            "" => Err(Status::invalid_argument("no name")),
            name => Ok(Part {
                name: format!("new {name}"),
            }),
        }
    }
}

#[tokio::test]
async fn protobuf_messages_are_passed_on() {
    let server = Server::builder().service(PartsServer::new(Renaming));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let (_gateway, address) = gateway(server.target(), TypedOptions::new()).await;
    let request = |kind: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /parts.v1.Parts/rename HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let protobuf = "application/x-protobuf";
    let renamed = ask(address, request(protobuf, "\n\u{1}a")).await;
    assert_eq!((renamed.status, &*renamed.body), (200, "\n\u{5}new a"));
    assert_eq!(renamed.header("content-type"), Some(protobuf));
    let mut http = Http::connect(address).await;
    http.send(request(protobuf, "")).await;
    assert_eq!(http.reply().await.status, 400);
    assert_eq!(
        ask(address, request("application/json", "{}")).await.status,
        415
    );
}
