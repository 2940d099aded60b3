//! Services that choose their codec, over real sockets: the bytes on the wire, and the behaviour
//! when the peer does not support the codec.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead, RequestHead};
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Code, Execution, MethodError, Payload,
    ReplyMetadata, Schema, Status, Stream, Streaming, service,
};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::common::calls::{
    expect, lazy, record, request, serve, serve_until_request, serve_with, status_in,
};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{spawn, within};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Note {
    text: String,
    tags: Vec<String>,
    data: Payload,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum NoteError {
    #[error("longer than {0} bytes")]
    TooLong(u32),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

fn note() -> Note {
    Note {
        text: "grüezi".into(),
        tags: vec!["a".into(), String::new()],
        data: vec![0xff; 5000].into(),
    }
}

/// The same service in each codec for serde types, and a test of each.
macro_rules! services {
    ($($name:ident $service:ident $client:ident $server:ident $codec:literal;)*) => { $(
        #[service(path = "/notes", codec = $codec)]
        trait $service {
            async fn echo(&self, note: &Note, times: u8) -> Result<Vec<Note>, NoteError>;
            async fn put(&self, ctx: &CallContext, key: Option<String>) -> Result<(), NoteError>;
            /// Returns the notes, and then an error.
            async fn mirror(
                &self,
                notes: Streaming<Note>,
            ) -> Result<impl Stream<Item = Result<Note, NoteError>>, NoteError>;
            #[rpc(json)]
            async fn json(&self, note: Note) -> Result<Note, Status>;
            #[rpc(raw)]
            async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
        }

        impl $service for Desk {
            async fn echo(&self, note: &Note, times: u8) -> Result<Vec<Note>, NoteError> {
                if times > 3 {
                    return Err(NoteError::TooLong(3));
                }
                Ok(vec![note.clone(); times.into()])
            }

            async fn put(&self, ctx: &CallContext, key: Option<String>) -> Result<(), NoteError> {
                let user = ctx.metadata().text("x-user").unwrap_or_default().to_owned();
                ctx.set_reply_metadata("x-seen", user).unwrap();
                match key {
                    Some(_) => Ok(()),
                    None => Err(Status::not_found("no key").into()),
                }
            }

            async fn mirror(
                &self,
                mut notes: Streaming<Note>,
            ) -> Result<impl Stream<Item = Result<Note, NoteError>>, NoteError> {
                let (sender, mirrored) = Streaming::channel(1);
                spawn(async move {
                    while let Some(Ok(note)) = notes.next().await {
                        if sender.send(note).await.is_err() {
                            return;
                        }
                    }
                    sender.fail(NoteError::TooLong(7)).await;
                });
                Ok(mirrored)
            }

            async fn json(&self, note: Note) -> Result<Note, Status> {
                Ok(note)
            }

            async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
                Ok(body)
            }
        }

        #[tokio::test]
        async fn $name() {
            let (_server, client) = serve($server::new(Desk)).await;
            let reply = ReplyMetadata::new();
            let options = CallOptions::new().metadata("x-user", "ann").unwrap();
            let notes = $client::new(client).with_options(options.reply_metadata(&reply));
            assert_eq!(notes.echo(&note(), 2).await.unwrap(), [note(), note()]);
            assert_eq!(notes.echo(&note(), 4).await, Err(NoteError::TooLong(3)));
            notes.put(&CallContext::new(), Some("k".into())).await.unwrap();
            assert_eq!(reply.get().text("x-seen"), Some("ann"));
            let NoteError::Rpc(status) = notes.put(&CallContext::new(), None).await.unwrap_err() else {
                panic!("no status");
            };
            expect(&status, Code::NotFound, Execution::MayHaveExecuted);
            assert_eq!(status.metadata().text("x-seen"), Some("ann"));
            let mut mirrored = notes.mirror(Streaming::iter(vec![note(); 3])).await.unwrap();
            for _ in 0..3 {
                assert_eq!(within("a note", mirrored.next()).await, Some(Ok(note())));
            }
            let end = within("the error", mirrored.next()).await;
            assert_eq!(end, Some(Err(NoteError::TooLong(7))));
            assert_eq!(notes.json(note()).await.unwrap(), note());
            assert_eq!(notes.raw(Bytes::from_static(b"x")).await.unwrap(), "x");
        }
    )* };
}

struct Desk;

services! {
    a_service_in_bincode_works InBincode InBincodeClient InBincodeServer "bincode";
    a_service_in_postcard_works InPostcard InPostcardClient InPostcardServer "postcard";
    a_service_in_msgpack_works InMsgpack InMsgpackClient InMsgpackServer "msgpack";
    a_service_in_json_works InJson InJsonClient InJsonServer "json";
}

/// A service that leaves the codec to the client.
#[service]
trait Free {
    async fn add(&self, left: u32, right: u32) -> Result<u32, Status>;
}

impl Free for Desk {
    async fn add(&self, left: u32, right: u32) -> Result<u32, Status> {
        Ok(left + right)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Hits {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
}

#[service(codec = "protobuf", dyn)]
trait Search {
    async fn find(&self, query: &Query) -> Result<Hits, NoteError>;
    async fn owned(&self, ctx: &CallContext, query: Query) -> Result<Hits, Status>;
    async fn clear(&self, request: &()) -> Result<(), Status>;
    async fn repeat(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Query, NoteError>>, NoteError>;
    async fn gather(&self, queries: Streaming<Query>) -> Result<Hits, NoteError>;
    async fn until(
        &self,
        last: Query,
        queries: Streaming<Query>,
    ) -> Result<impl Stream<Item = Result<Hits, NoteError>>, Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

impl Search for Desk {
    /// Sends three messages, one of them empty, and then an error.
    async fn repeat(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Query, NoteError>>, NoteError> {
        match query.text.as_str() {
            "long" => Err(NoteError::TooLong(3)),
            "short" => Ok(Streaming::iter([query])),
            _ => {
                let (sender, stream) = Streaming::channel(4);
                for query in [query.clone(), Query::default(), query] {
                    assert!(sender.send(query).await.is_ok());
                }
                sender.fail(NoteError::TooLong(4)).await;
                Ok(stream)
            }
        }
    }

    async fn gather(&self, mut queries: Streaming<Query>) -> Result<Hits, NoteError> {
        let mut hits = Hits::default();
        while let Some(query) = queries.next().await {
            hits.queries.push(query?);
        }
        match hits.queries.len() {
            0 => Err(NoteError::TooLong(0)),
            _ => Ok(hits),
        }
    }

    async fn until(
        &self,
        last: Query,
        mut queries: Streaming<Query>,
    ) -> Result<impl Stream<Item = Result<Hits, NoteError>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        spawn(async move {
            while let Some(Ok(query)) = queries.next().await {
                let is_last = query == last;
                let queries = vec![query];
                if sender.send(Hits { queries }).await.is_err() || is_last {
                    break;
                }
            }
            sender.finish();
        });
        Ok(stream)
    }

    async fn find(&self, query: &Query) -> Result<Hits, NoteError> {
        match query.text.as_str() {
            "long" => Err(NoteError::TooLong(3)),
            "none" => Err(Status::not_found("nothing").into()),
            _ => Ok(Hits {
                queries: vec![query.clone(); 2],
            }),
        }
    }

    async fn owned(&self, ctx: &CallContext, query: Query) -> Result<Hits, Status> {
        let user = ctx.metadata().text("x-user").unwrap_or_default().to_owned();
        ctx.set_reply_metadata("x-seen", user).unwrap();
        Ok(Hits {
            queries: vec![query],
        })
    }

    async fn clear(&self, (): &()) -> Result<(), Status> {
        Ok(())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

fn query(text: &str) -> Query {
    Query {
        text: text.into(),
        data: vec![7; 10_000].into(),
    }
}

#[tokio::test]
async fn a_service_in_protobuf_takes_and_returns_messages_without_serde() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let reply = ReplyMetadata::new();
    let options = CallOptions::new().metadata("x-user", "ann").unwrap();
    let search = SearchClient::new(client).with_options(options.reply_metadata(&reply));
    let hits = search.find(&query("a")).await.unwrap();
    assert_eq!(hits.queries, [query("a"), query("a")]);
    let hits = search.find(&Query::default()).await.unwrap();
    assert_eq!(hits.queries, [Query::default(), Query::default()]);
    let hits = search.owned(&CallContext::new(), query("b")).await;
    assert_eq!(hits.unwrap().queries, [query("b")]);
    assert_eq!(reply.get().text("x-seen"), Some("ann"));
    search.clear(&()).await.unwrap();
    assert_eq!(search.raw(Bytes::from_static(b"x")).await.unwrap(), "x");
}

#[tokio::test]
async fn the_errors_of_a_protobuf_service_are_those_of_any_other() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let search = SearchClient::new(client);
    let error = search.find(&query("long")).await;
    assert_eq!(error.unwrap_err(), NoteError::TooLong(3));
    let NoteError::Rpc(status) = search.find(&query("none")).await.unwrap_err() else {
        panic!("no status");
    };
    expect(&status, Code::NotFound, Execution::MayHaveExecuted);
}

async fn next<S: Stream>(mut stream: Pin<&mut S>) -> Option<S::Item> {
    let next = poll_fn(|cx| stream.as_mut().poll_next(cx));
    within("the next message", next).await
}

/// Calls methods with streams of every kind through an implementation of the trait.
async fn all_streams(search: &impl Search) {
    let mut repeated = pin!(search.repeat(query("a")).await.unwrap());
    for expected in [query("a"), Query::default(), query("a")] {
        assert_eq!(next(repeated.as_mut()).await, Some(Ok(expected)));
    }
    let failed = next(repeated.as_mut()).await;
    assert_eq!(failed, Some(Err(NoteError::TooLong(4))));
    let mut repeated = pin!(search.repeat(query("short")).await.unwrap());
    for expected in [Some(Ok(query("short"))), None] {
        assert_eq!(next(repeated.as_mut()).await, expected);
    }
    let rejected = search.repeat(query("long")).await;
    assert_eq!(rejected.err(), Some(NoteError::TooLong(3)));

    let many: Vec<_> = (0..100).map(|number| query(&number.to_string())).collect();
    let hits = search.gather(Streaming::iter(many.clone())).await;
    assert_eq!(hits.unwrap().queries, many);
    let hits = search.gather(Streaming::iter([])).await;
    assert_eq!(hits.unwrap_err(), NoteError::TooLong(0));

    let (sender, queries) = Streaming::channel(1);
    let mut replies = pin!(search.until(query("b"), queries).await.unwrap());
    for text in ["a", "b"] {
        sender.send(query(text)).await.unwrap();
        let hits = next(replies.as_mut()).await.unwrap().unwrap();
        assert_eq!(hits.queries, [query(text)]);
    }
    assert!(next(replies.as_mut()).await.is_none());
}

#[tokio::test]
async fn a_service_in_protobuf_has_streams_of_messages_in_both_directions() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let client = SearchClient::new(client);
    all_streams(&client).await;
    let object: Arc<dyn DynSearch> = Arc::new(client);
    all_streams(&object).await;
    all_streams(&Desk).await;
}

#[tokio::test]
async fn a_protobuf_service_is_called_through_its_trait_object_too() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let all: [Arc<dyn DynSearch>; 2] = [Arc::new(Desk), Arc::new(SearchClient::new(client))];
    for search in all {
        let hits = search.find(&query("a")).await.unwrap();
        assert_eq!(hits.queries.len(), 2);
    }
}

#[tokio::test]
async fn an_error_of_a_protobuf_method_is_sent_and_labelled_as_json() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let bytes = query("long").encode_to_vec();
    let call = client
        .raw()
        .request("/search/find", request(CodecId::PROTOBUF, None, &bytes));
    let (head, body) = ReplyHead::read(within("a reply", call).await.unwrap()).unwrap();
    assert_eq!((head.codec, head.outcome), (CodecId::JSON, Outcome::Error));
    assert_eq!(body, r#"{"TooLong":3}"#);
    let bytes = query("a").encode_to_vec();
    let call = client
        .raw()
        .request("/search/find", request(CodecId::PROTOBUF, None, &bytes));
    let (head, body) = ReplyHead::read(within("a reply", call).await.unwrap()).unwrap();
    assert_eq!(
        (head.codec, head.outcome),
        (CodecId::PROTOBUF, Outcome::Value)
    );
    let hits = Hits::decode(body).unwrap();
    assert_eq!(hits.queries, [query("a"), query("a")]);
}

#[tokio::test]
async fn a_protobuf_method_rejects_every_other_codec_with_a_reason() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    for codec in [CodecId::BINCODE, CodecId::JSON, CodecId::MSGPACK] {
        let call = client
            .raw()
            .request("/search/find", request(codec, None, b"\x00"));
        let status = status_in(within("a reply", call).await.unwrap());
        expect(&status, Code::Unimplemented, Execution::NotExecuted);
        let text = status.message();
        assert!(text.contains("Search.find takes protobuf"), "{text}");
        assert!(text.contains(&codec.to_string()), "{text}");
    }
    let call = client.raw().request("/search/find", r#"{"text":"a"}"#);
    let reply = within("a reply", call).await.unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(reply["code"], 12);
    let text = reply["message"].as_str().unwrap();
    assert!(text.contains("have no form in json"), "{text}");
}

#[tokio::test]
async fn a_stream_to_a_protobuf_method_in_another_codec_is_rejected_and_not_executed() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let head = request(CodecId::BINCODE, None, b"\x00");
    let call = client.raw().open_stream("/search/repeat", record(&head));
    let (_send, mut recv) = within("the call", call).await.unwrap();
    assert!(within("the end", recv.next()).await.is_none());
    let status = status_in(recv.reply().unwrap().unwrap());
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    let text = status.message();
    assert!(text.contains("Search.repeat takes protobuf"), "{text}");
}

/// The status of a call whose arguments are no message of its method.
async fn rejected(client: &Client, path: &str, arguments: &[u8]) -> Status {
    let request = request(CodecId::PROTOBUF, None, arguments);
    let call = client.raw().request(path, request);
    let status = status_in(within("a reply", call).await.unwrap());
    expect(&status, Code::InvalidArgument, Execution::NotExecuted);
    status
}

#[tokio::test]
async fn bytes_that_are_not_a_message_are_rejected_and_not_executed() {
    let (_server, client) = serve(SearchServer::new(Desk)).await;
    let status = rejected(&client, "/search/find", b"\x0a\xff").await;
    assert!(status.message().contains("argument `query`"), "{status}");
}

#[tokio::test]
async fn protobuf_to_a_method_of_serde_types_is_rejected_and_not_executed() {
    let (_server, client) = serve(FreeServer::new(Desk)).await;
    rejected(&client, "/free/add", b"\x08\x01").await;
}

#[tokio::test]
async fn callers_may_use_another_codec_than_the_service() {
    let (_server, client) = serve(InMsgpackServer::new(Desk)).await;
    let notes = InPostcardClient::new(client);
    assert_eq!(notes.echo(&note(), 1).await.unwrap(), [note()]);
}

#[tokio::test]
async fn both_sides_announce_every_codec_of_the_build() {
    let (listener, client) = lazy(Client::builder()).await;
    let call = spawn(async move { FreeClient::new(client).add(1, 2).await });
    let mut peer = Peer::over(accepted(&listener).await);
    let hello = peer.frame().await;
    assert_eq!(hello.path_text(), "/sys/hello");
    call.abort();

    let (server, _client) = serve(FreeServer::new(Desk)).await;
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    let reply = peer.call("/sys/hello", 0, r#"{"iip":1}"#).await;
    for side in [hello, reply] {
        let said: serde_json::Value = serde_json::from_slice(&side.body).unwrap();
        assert_eq!(said["rpc"]["codecs"], serde_json::json!([1, 2, 3, 4, 5]));
    }
}

/// The hello of a server that supports these codecs.
fn hello(codecs: &[u8]) -> String {
    let rpc = serde_json::json!({ "envelope": 0, "codecs": codecs });
    let hello = serde_json::json!({
        "code": 0, "iip": 1, "control": 0, "max_frame": 16_777_216, "rpc": rpc,
    });
    hello.to_string()
}

/// The codec of a request in the envelope.
fn codec_of(request: &RawFrame) -> CodecId {
    let body = Bytes::copy_from_slice(&request.body);
    RequestHead::read(body).unwrap().0.codec
}

/// The first request of a client to a server that sends this hello.
async fn first_request<F>(
    client: ClientBuilder,
    hello: &str,
    path: &str,
    call: impl FnOnce(Client) -> F,
) -> RawFrame
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (listener, client) = lazy(client).await;
    let call = spawn(call(client));
    let mut peer = Peer::over(accepted(&listener).await);
    let request = serve_until_request(&mut peer, Some(hello), path).await;
    call.abort();
    request
}

#[tokio::test]
async fn the_codec_of_the_service_overrides_that_of_the_client() {
    let all = hello(&[1, 2, 3, 4, 5]);
    let client = || Client::builder().codec(CodecId::BINCODE);
    let add = |client| async move { FreeClient::new(client).add(1, 2).await };
    let request = first_request(client(), &all, "/free/add", add).await;
    assert_eq!(codec_of(&request), CodecId::BINCODE);
    let msgpack = Client::builder().codec(CodecId::MSGPACK);
    let request = first_request(msgpack, &all, "/free/add", add).await;
    assert_eq!(codec_of(&request), CodecId::MSGPACK);

    let echo = |client| async move { InPostcardClient::new(client).echo(&note(), 1).await };
    let request = first_request(client(), &all, "/notes/echo", echo).await;
    assert_eq!(codec_of(&request), CodecId::POSTCARD);
    let find = |client| async move { SearchClient::new(client).find(&query("a")).await };
    let request = first_request(client(), &all, "/search/find", find).await;
    assert_eq!(codec_of(&request), CodecId::PROTOBUF);
    assert!(request.body.ends_with(&query("a").encode_to_vec()));
}

#[tokio::test]
async fn a_server_without_the_codec_is_called_in_json() {
    let echo = |client| async move { InPostcardClient::new(client).echo(&note(), 1).await };
    let only = hello(&[1, 3]);
    let request = first_request(Client::builder(), &only, "/notes/echo", echo).await;
    assert_eq!(codec_of(&request), CodecId::JSON);
    let echo = |client| async move { InMsgpackClient::new(client).echo(&note(), 1).await };
    let plain = r#"{"code":102,"message":"handle error"}"#;
    let request = first_request(Client::builder(), plain, "/notes/echo", echo).await;
    assert_eq!(request.body[0], b'{', "plain JSON");
}

#[tokio::test]
async fn a_server_without_protobuf_is_not_called_at_all() {
    for hello in [
        hello(&[1, 3]),
        r#"{"code":102,"message":"handle error"}"#.into(),
    ] {
        let (listener, client) = lazy(Client::builder()).await;
        let call = spawn(async move {
            let search = SearchClient::new(client);
            let first = search.find(&query("a")).await.unwrap_err();
            // The connection stays usable.
            let _ = search.raw(Bytes::from_static(b"x")).await;
            first
        });
        let mut peer = Peer::over(accepted(&listener).await);
        serve_until_request(&mut peer, Some(&hello), "/search/raw").await;
        drop(peer);
        let NoteError::Rpc(status) = within("the rejection", call).await.unwrap() else {
            panic!("no status");
        };
        expect(&status, Code::Unimplemented, Execution::NotSent);
        let text = status.message();
        assert!(
            text.contains("Search.find") && text.contains("codec-prost"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn protobuf_as_the_codec_of_a_client_is_rejected_for_serde_types_before_anything_is_sent() {
    let client = Client::builder().codec(CodecId::PROTOBUF);
    let server = iip_rpc::Server::builder();
    let (_server, client) = serve_with(FreeServer::new(Desk), server, client).await;
    let status = FreeClient::new(client).add(1, 2).await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotSent);
    assert!(status.message().contains("`Proto`"), "{status}");
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Note>().unwrap();
    check_derived::<NoteError>().unwrap();
}
