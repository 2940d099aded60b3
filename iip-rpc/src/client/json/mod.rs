//! Calls by path with arguments in JSON, for programs that have no types.

mod method;
mod text;

use bytes::Bytes;
use serde::de::IgnoredAny;

use self::method::{Manner, method_at};
pub use self::text::{JsonError, JsonText};
use super::Client;
use super::body::EncodedBody;
use super::call::{CallSpec, Kind, Single};
use super::failure::not_sent;
use crate::arguments::recorded::EncodedArgs;
use crate::codec::CodecId;
use crate::context::CallContext;
use crate::method::MethodDescriptor;
use crate::status::Status;
use crate::streaming::Streaming;
use crate::streaming::writer::Outgoing;
use crate::subscription::Subscription;

/// A call of a method by its path, with arguments and results in JSON. Created by
/// [`Client::json`].
///
/// The caller chooses the function for the kind of the method, which the method's
/// [description](crate::schema) tells. Timeout, metadata and other options are those of the client,
/// see [`Client::with_options`]. Interceptors, retries and balancing are those of typed calls.
///
/// Arguments are an object with their names, or the value of the only one; `{}` if there are none.
/// Nothing but their syntax is checked before the call.
///
/// ```
/// use iip_rpc::{Client, Server, Status, Stream, Streaming, service};
///
/// #[service]
/// pub trait Numbers {
///     async fn count(&self, last: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
/// }
///
/// struct Here;
///
/// impl Numbers for Here {
///     async fn count(
///         &self,
///         last: u32,
///     ) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
///         Ok(Streaming::iter(1..=last))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder().service(NumbersServer::new(Here)).bind("127.0.0.1:0").await?;
/// let client = Client::connect(server.target()).await?;
/// let mut counted = client.json("/numbers/count").server_stream(r#"{"last": 2}"#).await?;
/// assert_eq!(counted.next().await.transpose()?.map(|item| item.to_string()), Some("1".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it calls nothing by itself"]
pub struct JsonCall {
    client: Client,
    path: String,
    codec: CodecId,
    idempotent: bool,
}

impl Client {
    /// Begins a call of the method at `path`, such as `/shop.v1.Orders/find`, with JSON.
    ///
    /// A process can call 16,384 different paths in this way; the memory for a path, a few hundred
    /// bytes, is not released.
    pub fn json(&self, path: impl Into<String>) -> JsonCall {
        JsonCall {
            client: self.clone(),
            path: path.into(),
            codec: CodecId::JSON,
            idempotent: false,
        }
    }

    /// Calls a unary method by its path with JSON, and returns the result in JSON. It is short for
    /// `client.json(path).unary(args)` with the method's own error as a [`Status`]: its code is
    /// UNKNOWN, and the error in JSON is its details.
    ///
    /// # Errors
    ///
    /// Like [`JsonCall::unary`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub fn call_json(
        &self,
        path: &str,
        args: &str,
    ) -> impl Future<Output = Result<String, Status>> + Send {
        let call = self.json(path);
        let args = Bytes::copy_from_slice(args.as_bytes());
        async move {
            let result = call.unary(args).await?;
            // The reply was read as UTF-8.
            Ok(String::from_utf8_lossy(&result).into_owned())
        }
    }
}

impl JsonCall {
    /// Declares that running the method twice does no more than running it once: the call may be
    /// retried after it may have run.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Passes on arguments and a result in another codec than JSON, as the bytes that they are. For
    /// calls with one request and one reply: of methods that take protobuf messages, or with
    /// arguments that [`codec::dynamic`](crate::codec::dynamic) has encoded.
    ///
    /// The method's own error is then a status with the code UNKNOWN, and the error as it is encoded
    /// as its details.
    pub fn encoded_in(mut self, codec: CodecId) -> Self {
        self.codec = codec;
        self
    }

    /// Calls a method with one reply. Returns the result in JSON.
    ///
    /// # Errors
    ///
    /// The method's own error, or a status: INVALID_ARGUMENT, not sent, if the path or the
    /// arguments are not valid.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub fn unary(
        self,
        args: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Bytes, JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, false)?;
            let mut body = EncodedBody::new(args);
            let mut spec = CallSpec::new(method, None::<&CallContext>, &mut body);
            let kind = Kind::Single(Single::Unary);
            let outcome = self.client.run(&mut spec, kind).await;
            body.into_encoded(outcome)
        }
    }

    /// Calls a one-way method, see [`Client::one_way`]. Completes once the call is queued to be
    /// written.
    ///
    /// # Errors
    ///
    /// The reason why it was not sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, the call was not sent.
    pub fn one_way(
        self,
        args: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, true)?;
            self.client.one_way(method, None, args).await
        }
    }

    /// Calls a method that replies with a stream. Completes once the method has accepted the call,
    /// see [`Client::server_stream`].
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call; the server is notified.
    pub fn server_stream(
        self,
        args: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Streaming<JsonText, JsonError>, JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, false)?;
            self.client.server_stream(method, None, args).await
        }
    }

    /// Calls a method that replies with a [`Subscription`], see [`Client::subscribe`]. To begin
    /// after the position of an earlier one, use [`CallOptions::resume`](crate::CallOptions::resume).
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the subscription, cancels the call; the server is notified.
    pub fn subscribe(
        self,
        args: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Subscription<JsonText>, JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, false)?;
            self.client.subscribe(method, None, args).await
        }
    }

    /// Calls a method that takes a stream and replies with a value, see [`Client::client_stream`].
    /// Returns the result in JSON.
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary). If `messages` fails, its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub fn client_stream(
        self,
        args: impl Into<Bytes>,
        messages: Streaming<JsonText>,
    ) -> impl Future<Output = Result<Bytes, JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, false)?;
            let mut body = EncodedBody::new(args);
            let mut messages = Outgoing(messages);
            let mut spec = CallSpec::new(method, None::<&CallContext>, &mut body);
            let kind = Kind::Upload(&mut messages);
            let outcome = self.client.run(&mut spec, kind).await;
            body.into_encoded(outcome)
        }
    }

    /// Calls a method that takes a stream and replies with one, see [`Client::bidi_stream`].
    ///
    /// # Errors
    ///
    /// Like [`unary`](Self::unary). If `messages` fails, the stream ends with its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, cancels the call; the server is notified.
    pub fn bidi_stream(
        self,
        args: impl Into<Bytes>,
        messages: Streaming<JsonText>,
    ) -> impl Future<Output = Result<Streaming<JsonText, JsonError>, JsonError>> + Send {
        let args = args.into();
        async move {
            let (method, args) = self.prepared(args, false)?;
            self.client.bidi_stream(method, None, args, messages).await
        }
    }

    /// The descriptor of the method, and its arguments once they are checked.
    fn prepared(
        &self,
        args: Bytes,
        one_way: bool,
    ) -> Result<(&'static MethodDescriptor, EncodedArgs), Status> {
        let manner = Manner {
            codec: self.codec,
            idempotent: self.idempotent,
            one_way,
        };
        let method = method_at(&self.path, manner).map_err(not_sent)?;
        if self.codec == CodecId::JSON
            && let Err(error) = serde_json::from_slice::<IgnoredAny>(&args)
        {
            let text = format!("{method}: the arguments are not JSON: {error}");
            return Err(not_sent(Status::invalid_argument(text)));
        }
        let codec = self.codec;
        Ok((method, EncodedArgs { codec, bytes: args }))
    }
}
