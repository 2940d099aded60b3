//! Comparison of the generated text with the checked-in text, which is compiled and called here.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use iip_build::prost_build::Config;
use iip_rpc::{Client, Server, Status, Stream, Streaming};

#[allow(missing_docs, dead_code, unreachable_pub, clippy::all)]
#[path = "snapshots/mod.rs"]
mod snapshots;

use snapshots::test::kinds::{Kinds, KindsClient, KindsServer, Reply, Request};
use snapshots::test::names::v1::{self as names, HttpGateway as _};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// Returns a separate folder for each test.
fn out_dir(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

/// `UPDATE_SNAPSHOTS=1 cargo test -p iip-build` writes the text that is generated now.
#[test]
fn the_generated_text_is_the_checked_in_text() {
    let out = out_dir("snapshots");
    let mut config = Config::new();
    config.include_file("mod.rs");
    iip_build::configure()
        .out_dir(&out)
        .method_attribute(
            "Kinds.Write",
            "#[rpc(timeout = \"5s\", on_cancel = \"run\")]",
        )
        .trait_attribute(".test.names", "#[cfg(not(any()))]")
        .service_setting(".test.kinds.Kinds", "dyn")
        .compile_with_config(
            config,
            &[format!("{FOLDER}/proto/names.proto")],
            &[format!("{FOLDER}/proto")],
        )
        .unwrap();
    let mut files: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["mod.rs", "test.kinds.rs", "test.names.v1.rs"]);
    for file in files {
        let now = fs::read_to_string(out.join(&file)).unwrap();
        let path = Path::new(FOLDER).join("snapshots").join(&file);
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&path, &now).unwrap();
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            now == checked_in,
            "{file} differs, UPDATE_SNAPSHOTS=1 writes it; now:\n{now}"
        );
    }
}

#[test]
fn messages_from_elsewhere_are_used_and_not_generated() {
    let out = out_dir("extern_path");
    let folder = format!("{FOLDER}/proto");
    iip_build::configure()
        .out_dir(&out)
        .extern_path(".test.kinds", "crate::pb")
        .compile_protos(&[format!("{folder}/kinds.proto")], &[folder])
        .unwrap();
    let text = fs::read_to_string(out.join("test.kinds.rs")).unwrap();
    assert!(text.contains("request: crate::pb::Request"), "{text}");
    assert!(text.contains("pub trait Kinds {"), "{text}");
    assert!(!text.contains("struct"), "{text}");
}

struct Counter;

impl Kinds for Counter {
    async fn unary(&self, request: Request) -> Result<Reply, Status> {
        Ok(Reply {
            count: request.count + 1,
        })
    }

    async fn server_stream(
        &self,
        request: Request,
    ) -> Result<impl Stream<Item = Result<Reply, Status>>, Status> {
        Ok(Streaming::iter(
            (0..request.count).map(|count| Reply { count }),
        ))
    }

    async fn client_stream(&self, mut requests: Streaming<Request>) -> Result<Reply, Status> {
        let mut count = 0;
        while let Some(request) = requests.next().await {
            count += request?.count;
        }
        Ok(Reply { count })
    }

    async fn bidi(
        &self,
        mut requests: Streaming<Request>,
    ) -> Result<impl Stream<Item = Result<Reply, Status>>, Status> {
        let (sender, replies) = Streaming::channel(1);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let count = request.count + 1;
                if sender.send(Reply { count }).await.is_err() {
                    return;
                }
            }
            sender.finish();
        });
        Ok(replies)
    }

    async fn read(&self, request: Request) -> Result<Reply, Status> {
        self.unary(request).await
    }

    async fn write(&self, request: Request) -> Result<Reply, Status> {
        self.unary(request).await
    }

    async fn old(&self, request: Request) -> Result<Reply, Status> {
        self.unary(request).await
    }
}

#[tokio::test]
async fn the_generated_traits_are_served_and_called() -> Result<(), Status> {
    let server = Server::builder()
        .service(KindsServer::new(Counter))
        .service(names::HttpGatewayServer::new(Gateway))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.target()).await?;

    let kinds = KindsClient::new(client.clone());
    assert_eq!(kinds.unary(Request { count: 1 }).await?.count, 2);
    let mut replies = kinds.server_stream(Request { count: 3 }).await?;
    for count in 0..3 {
        assert_eq!(replies.next().await.unwrap()?, Reply { count });
    }
    assert!(replies.next().await.is_none());
    let requests = Streaming::iter([1, 2, 3].map(|count| Request { count }));
    assert_eq!(kinds.client_stream(requests).await?.count, 6);
    let (sender, requests) = Streaming::channel(1);
    let mut replies = kinds.bidi(requests).await?;
    for count in [5, 7] {
        sender.send(Request { count }).await.unwrap();
        assert_eq!(replies.next().await.unwrap()?.count, count + 1);
    }
    sender.finish();
    assert!(replies.next().await.is_none());

    let gateway = names::HttpGatewayClient::new(client);
    let inner = names::outer::Inner {
        text: "abc".to_owned(),
    };
    assert_eq!(gateway.r#type(inner).await?, names::Result {});
    assert_eq!(gateway.self_(names::Client {}).await?, names::Status {});
    assert_eq!(gateway.new_(names::Status {}).await?, names::Status {});
    let mut replies = gateway.clone_(Streaming::iter([names::Status {}])).await?;
    assert_eq!(replies.next().await.unwrap()?, names::Status {});
    assert!(replies.next().await.is_none());
    assert_eq!(gateway.get_url_by_id("abc".to_owned()).await?, b"abc");
    assert_eq!(gateway.already_snake(()).await?.seconds, 5);
    let mut replies = gateway.from_elsewhere(Request { count: 4 }).await?;
    assert_eq!(replies.next().await.unwrap()?.count, 4);
    Ok(())
}

struct Gateway;

impl names::HttpGateway for Gateway {
    async fn r#type(&self, request: names::outer::Inner) -> Result<names::Result, Status> {
        assert_eq!(request.text, "abc");
        Ok(names::Result {})
    }

    async fn self_(&self, _: names::Client) -> Result<names::Status, Status> {
        Ok(names::Status {})
    }

    async fn new_(&self, request: names::Status) -> Result<names::Status, Status> {
        Ok(request)
    }

    async fn clone_(
        &self,
        requests: Streaming<names::Status>,
    ) -> Result<impl Stream<Item = Result<names::Status, Status>>, Status> {
        Ok(requests)
    }

    async fn get_url_by_id(&self, request: String) -> Result<Vec<u8>, Status> {
        Ok(request.into_bytes())
    }

    async fn already_snake(&self, (): ()) -> Result<prost_types::Timestamp, Status> {
        Ok(prost_types::Timestamp {
            seconds: 5,
            nanos: 0,
        })
    }

    async fn from_elsewhere(
        &self,
        request: Request,
    ) -> Result<impl Stream<Item = Result<Reply, Status>>, Status> {
        Ok(Streaming::iter([Reply {
            count: request.count,
        }]))
    }
}
