//! Metadata of requests and replies, in both directions, within its limit.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use iip_rpc::envelope::{Outcome, ReplyHead, read_status};
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallContext, CallOptions, Code, Execution, Metadata, MethodError, ReplyMetadata, Schema,
    Server, Status, service,
};
use serde::{Deserialize, Serialize};

use crate::common::calls::{current, expect, serve, serve_json};
use crate::common::{GUARD, within};

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum OwnError {
    #[error("no")]
    No,
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service]
trait Headers {
    /// Returns all entries of the request.
    async fn received(&self) -> Result<Vec<(String, Vec<u8>)>, Status>;
    async fn received_by(&self, ctx: &CallContext) -> Result<Vec<(String, Vec<u8>)>, Status>;
    /// Sends metadata with the reply.
    async fn answer(&self, ctx: &CallContext, key: &str, value: &[u8]) -> Result<String, Status>;
    async fn fail(&self, ctx: &CallContext) -> Result<(), OwnError>;
    async fn fail_with_status(&self, ctx: &CallContext) -> Result<(), Status>;
    async fn nested(&self) -> Result<Vec<(String, Vec<u8>)>, Status>;
    async fn nested_with_context(
        &self,
        ctx: &CallContext,
    ) -> Result<Vec<(String, Vec<u8>)>, Status>;
}

struct Desk {
    next: Option<HeadersClient>,
}

impl Desk {
    fn entries(ctx: &CallContext) -> Vec<(String, Vec<u8>)> {
        let entries = ctx.metadata().iter();
        entries
            .map(|(key, value)| (key.to_owned(), value.to_vec()))
            .collect()
    }

    fn next(&self) -> Result<&HeadersClient, Status> {
        let next = self.next.as_ref();
        next.ok_or_else(|| Status::internal("no next server"))
    }
}

impl Headers for Desk {
    async fn received(&self) -> Result<Vec<(String, Vec<u8>)>, Status> {
        let ctx = current()?;
        Ok(Self::entries(&ctx))
    }

    async fn received_by(&self, ctx: &CallContext) -> Result<Vec<(String, Vec<u8>)>, Status> {
        Ok(Self::entries(ctx))
    }

    async fn answer(&self, ctx: &CallContext, key: &str, value: &[u8]) -> Result<String, Status> {
        match ctx.set_reply_metadata(key, value.to_vec()) {
            Ok(()) => Ok("done".into()),
            Err(error) => Ok(error.to_string()),
        }
    }

    async fn fail(&self, ctx: &CallContext) -> Result<(), OwnError> {
        ctx.set_reply_metadata("x-why", "typed").unwrap();
        Err(OwnError::No)
    }

    async fn fail_with_status(&self, ctx: &CallContext) -> Result<(), Status> {
        ctx.set_reply_metadata("x-why", "context").unwrap();
        let mut metadata = Metadata::new();
        metadata.insert_text("x-own", "status").unwrap();
        Err(Status::aborted("no").with_metadata(metadata))
    }

    async fn nested(&self) -> Result<Vec<(String, Vec<u8>)>, Status> {
        self.next()?.received().await
    }

    async fn nested_with_context(
        &self,
        ctx: &CallContext,
    ) -> Result<Vec<(String, Vec<u8>)>, Status> {
        self.next()?.received_by(ctx).await
    }
}

async fn desk() -> (Server, HeadersClient) {
    let (server, client) = serve(HeadersServer::new(Desk { next: None })).await;
    (server, HeadersClient::new(client))
}

fn entry(key: &str, value: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (key.to_owned(), value.as_ref().to_vec())
}

#[tokio::test]
async fn metadata_of_the_caller_reaches_the_handler_in_order() {
    let (_server, headers) = desk().await;
    assert_eq!(headers.received().await.unwrap(), []);
    let options = CallOptions::new()
        .metadata("x-user", "ann")
        .and_then(|options| options.metadata("x.bytes_1-a", vec![0, 159, 255]))
        .and_then(|options| options.metadata("x-empty", ""))
        .unwrap();
    let with = headers.with_options(options);
    for _ in 0..2 {
        assert_eq!(
            with.received().await.unwrap(),
            [
                entry("x-user", "ann"),
                entry("x.bytes_1-a", [0, 159, 255]),
                entry("x-empty", ""),
            ]
        );
    }
    assert_eq!(
        headers.received().await.unwrap(),
        [],
        "the client it was made from is as it was"
    );
}

#[tokio::test]
async fn options_are_added_to_those_of_the_client_they_are_given_to() {
    let (_server, headers) = desk().await;
    let reply = ReplyMetadata::new();
    let first = CallOptions::new()
        .timeout(Duration::ZERO)
        .reply_metadata(&reply)
        .metadata("x-one", "1")
        .and_then(|options| options.metadata("x-two", "2"))
        .unwrap();
    let second = CallOptions::new()
        .timeout(GUARD)
        .metadata("x-one", "other")
        .unwrap();
    let headers = headers.with_options(first).with_options(second);
    assert_eq!(
        headers.received().await.unwrap(),
        [entry("x-two", "2"), entry("x-one", "other")]
    );
    headers
        .answer(&CallContext::new(), "x-cost", &[1])
        .await
        .unwrap();
    assert_eq!(reply.get().get("x-cost").unwrap()[..], [1]);
    let hasty = headers.with_options(CallOptions::new().timeout(Duration::ZERO));
    let status = hasty.received().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_call_fails_if_the_metadata_of_its_options_does_not_fit_together() {
    let (_server, headers) = desk().await;
    let half = |key| {
        let value = vec![0; Metadata::MAX_BYTES / 2];
        CallOptions::new().metadata(key, value).unwrap()
    };
    let full = headers
        .with_options(half("x-one"))
        .with_options(half("x-two"))
        .with_options(CallOptions::new());
    let status = full.received().await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotSent);
    assert!(status.message().contains("16384"), "{status}");
    let replaced = headers
        .with_options(half("x-one"))
        .with_options(half("x-one"));
    assert_eq!(replaced.received().await.unwrap().len(), 1);
}

#[tokio::test]
async fn several_values_of_a_key_are_sent_in_their_order_after_the_others() {
    let (_server, headers) = desk().await;
    let mut metadata = Metadata::new();
    metadata.append("x-two", "1").unwrap();
    metadata.append("x-two", "2").unwrap();
    let options = CallOptions::new()
        .metadata("x-one", "0")
        .and_then(|options| options.append_metadata(&metadata))
        .unwrap();
    assert_eq!(
        headers.with_options(options).received().await.unwrap(),
        [
            entry("x-one", "0"),
            entry("x-two", "1"),
            entry("x-two", "2")
        ]
    );
}

#[tokio::test]
async fn metadata_of_a_reply_reaches_the_caller() {
    let (_server, headers) = desk().await;
    let reply = ReplyMetadata::new();
    let headers = headers.with_options(CallOptions::new().reply_metadata(&reply));
    let ctx = CallContext::new();
    headers.answer(&ctx, "x-cost", &[1, 0]).await.unwrap();
    assert_eq!(reply.get().get("x-cost").unwrap()[..], [1, 0]);
    headers.received().await.unwrap();
    assert!(reply.get().is_empty(), "the last reply has no metadata");
}

#[tokio::test]
async fn metadata_travels_with_the_json_codec_too() {
    let (_server, client) = serve_json(HeadersServer::new(Desk { next: None })).await;
    let reply = ReplyMetadata::new();
    let options = CallOptions::new().metadata("x-user", "ann").unwrap();
    let headers = HeadersClient::new(client).with_options(options.reply_metadata(&reply));
    assert_eq!(headers.received().await.unwrap(), [entry("x-user", "ann")]);
    let ctx = CallContext::new();
    headers.answer(&ctx, "x-cost", &[1, 0]).await.unwrap();
    assert_eq!(reply.get().get("x-cost").unwrap()[..], [1, 0]);
}

#[tokio::test]
async fn metadata_comes_with_a_typed_error() {
    let (_server, headers) = desk().await;
    let reply = ReplyMetadata::new();
    let headers = headers.with_options(CallOptions::new().reply_metadata(&reply));
    assert_eq!(headers.fail(&CallContext::new()).await, Err(OwnError::No));
    assert_eq!(reply.get().text("x-why"), Some("typed"));
}

#[tokio::test]
async fn metadata_of_a_reply_comes_with_a_status_that_has_its_own() {
    let (_server, headers) = desk().await;
    let reply = ReplyMetadata::new();
    let headers = headers.with_options(CallOptions::new().reply_metadata(&reply));
    let status = headers.fail_with_status(&CallContext::new()).await;
    let status = status.unwrap_err();
    assert_eq!(status.metadata().text("x-own"), Some("status"));
    assert_eq!(reply.get().text("x-own"), Some("status"));
    assert_eq!(reply.get().text("x-why"), Some("context"));
}

#[tokio::test]
async fn metadata_of_a_call_is_not_passed_on_to_nested_calls_by_default() {
    let (_far_server, far) = desk().await;
    let (_server, client) = serve(HeadersServer::new(Desk { next: Some(far) })).await;
    let options = CallOptions::new().metadata("x-token", "secret").unwrap();
    let headers = HeadersClient::new(client).with_options(options);
    assert_eq!(headers.nested().await.unwrap(), []);
    let ctx = CallContext::new();
    assert_eq!(headers.nested_with_context(&ctx).await.unwrap(), []);
}

#[test]
fn metadata_over_the_limit_is_rejected_where_it_is_added() {
    let error = CallOptions::new()
        .metadata("x-large", vec![0; Metadata::MAX_BYTES])
        .unwrap_err();
    assert!(error.to_string().contains("16384"), "{error}");
    assert!(CallOptions::new().metadata("X-Upper", "").is_err());
    let fits = Metadata::MAX_BYTES - Metadata::ENTRY_BYTES - "x".len();
    assert!(CallOptions::new().metadata("x", vec![0; fits]).is_ok());
    assert!(CallOptions::new().metadata("x", vec![0; fits + 1]).is_err());
}

#[tokio::test]
async fn the_largest_metadata_travels_in_both_directions() {
    let (_server, headers) = desk().await;
    let fits = Metadata::MAX_BYTES - Metadata::ENTRY_BYTES - "x".len();
    let reply = ReplyMetadata::new();
    let options = CallOptions::new()
        .metadata("x", vec![7; fits])
        .unwrap()
        .reply_metadata(&reply);
    let headers = headers.with_options(options);
    let seen = headers.received().await.unwrap();
    assert!(seen == [entry("x", vec![7; fits])]);
    let ctx = CallContext::new();
    let text = headers.answer(&ctx, "x", &vec![8; fits]).await;
    assert_eq!(text.unwrap(), "done");
    assert!(reply.get().get("x").unwrap()[..] == vec![8; fits]);
    let text = headers.answer(&ctx, "x", &vec![8; fits + 1]).await.unwrap();
    assert!(text.contains("16384"), "{text}");
}

/// Appends a number in the encoding of the wire.
fn put_varint(out: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

#[tokio::test]
async fn a_peer_that_sends_more_than_the_limit_is_rejected_and_not_executed() {
    let (_server, client) = serve(HeadersServer::new(Desk { next: None })).await;
    for (what, entries) in [
        ("two large values", vec![("x-a", 9_000), ("x-b", 9_000)]),
        ("many small entries", vec![("x", 0); 500]),
        ("an upper-case key", vec![("X", 1)]),
        ("an empty key", vec![("", 1)]),
    ] {
        let mut message = BytesMut::from(&[0x82, 1][..]);
        put_varint(&mut message, entries.len());
        for (key, value) in entries {
            put_varint(&mut message, key.len());
            message.put_slice(key.as_bytes());
            put_varint(&mut message, value);
            message.put_bytes(0, value);
        }
        let call = client.raw().request("/headers/received", message.freeze());
        let reply = within("a reply", call).await.unwrap();
        let (head, body) = ReplyHead::read(reply).unwrap();
        assert_eq!(head.outcome, Outcome::Status, "{what}");
        let status = read_status(body, head.metadata).unwrap();
        assert_eq!(
            (status.code(), status.execution()),
            (Code::InvalidArgument, Execution::NotExecuted),
            "{what}: {status}"
        );
    }
    assert_eq!(HeadersClient::new(client).received().await.unwrap(), []);
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<OwnError>().unwrap();
}
