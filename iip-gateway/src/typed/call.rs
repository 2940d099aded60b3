//! One call of a method.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Method, Response, StatusCode, Version};
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::PlainError;
use iip_rpc::schema::{Format, MethodKind};
use iip_rpc::{CallOptions, Client, JsonCall, JsonText, Status, Streaming};

use super::catalog::Found;
use super::events::{self, Source};
use super::lines::{Lines, Messages};
use super::negotiation::{BINARY, JSON, NDJSON, PROTOBUF, StreamForm, check_type};
use super::options::{JsonInt64, TypedOptions};
use super::request::ApiRequest;
use super::results::Results;
use super::{arguments, headers, int64};
use crate::body::ReplyBody;
use crate::failure::Failure;
use crate::request_body;

/// A call that a request asks for.
pub(super) struct Call<'a> {
    options: &'a TypedOptions,
    found: Found,
    client: Client,
    request: ApiRequest<'a>,
}

impl<'a> Call<'a> {
    /// Prepares the call: its timeout, its metadata, and the position at which a subscription
    /// resumes.
    pub(super) fn new(
        client: &Client,
        options: &'a TypedOptions,
        found: Found,
        request: ApiRequest<'a>,
    ) -> Result<Self, Failure> {
        let method = found.method();
        let accepts_get = method.idempotent
            && method.format != Format::Raw
            && !is_protobuf(&found)
            && has_one_request(method.kind);
        match request.parts.method {
            Method::POST => {}
            Method::GET if accepts_get => {}
            _ if accepts_get => return Err(headers::not_allowed("GET, POST")),
            _ => {
                let mut failure = headers::not_allowed("POST");
                failure.detail = format!(
                    "this method accepts POST; GET is for idempotent methods that take no stream, \
                     see {}/docs/",
                    options.prefix
                )
                .into();
                return Err(failure);
            }
        }
        Ok(Self {
            client: client.with_options(call_options(options, &found, &request)?),
            options,
            found,
            request,
        })
    }

    /// Makes the call, and returns the reply.
    pub(super) async fn make(self) -> Result<Response<ReplyBody>, Failure> {
        let results = Results::new(&self.found, self.options, self.request.trace);
        let method = self.found.method();
        if method.format == Format::Raw {
            return self.raw().await;
        }
        if is_protobuf(&self.found) {
            return self.protobuf(&results).await;
        }
        match method.kind {
            MethodKind::Unary => {
                let (call, args) = self.with_arguments().await?;
                let result = call.unary(args).await;
                results.reply(result)
            }
            MethodKind::OneWay => {
                let (call, args) = self.with_arguments().await?;
                let sent = call.one_way(args).await;
                sent.map_err(|error| results.failure(error))?;
                Ok(headers::empty(StatusCode::ACCEPTED))
            }
            MethodKind::ServerStream => {
                let form = StreamForm::of(&self.request.parts.headers)?;
                let (call, args) = self.with_arguments().await?;
                let stream = call.server_stream(args).await;
                let stream = stream.map_err(|error| results.failure(error))?;
                events::reply(Source::Stream(stream), form, results, None).await
            }
            MethodKind::Subscription => {
                let form = StreamForm::of(&self.request.parts.headers)?;
                let shutting_down = (self.request.shutting_down)();
                let (call, args) = self.with_arguments().await?;
                let subscription = call.subscribe(args).await;
                let subscription = subscription.map_err(|error| results.failure(error))?;
                let source = Source::Subscription(Box::new(subscription));
                events::reply(source, form, results, Some(shutting_down)).await
            }
            MethodKind::ClientStream => {
                let (call, args, messages) = self.with_messages(&results, false).await?;
                let result = call.client_stream(args, messages).await;
                results.reply(result)
            }
            MethodKind::Bidirectional => {
                let form = StreamForm::of(&self.request.parts.headers)?;
                if self.request.parts.version < Version::HTTP_2 {
                    return Err(Failure::refused(
                        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                        "UNIMPLEMENTED",
                        "a call whose streams run in both directions needs HTTP/2",
                    ));
                }
                let (call, args, messages) = self.with_messages(&results, true).await?;
                let stream = call.bidi_stream(args, messages).await;
                let stream = stream.map_err(|error| results.failure(error))?;
                events::reply(Source::Stream(stream), form, results, None).await
            }
            _ => Err(Failure::of_status(&Status::unimplemented(
                "this gateway does not know the kind of the method",
            ))),
        }
    }

    /// Reads the arguments.
    async fn with_arguments(self) -> Result<(JsonCall, Bytes), Failure> {
        let (call, found, options) = (self.json(), self.found.clone(), self.options);
        let args = match self.request.parts.method {
            Method::GET => arguments::of_query(&found, &self.request.parts)?,
            _ => self.body(&[JSON]).await?,
        };
        Ok((call, converted(&found, options, args)?))
    }

    /// Reads the arguments, if the method has any, and begins to read messages.
    async fn with_messages(
        self,
        results: &Results,
        is_bidirectional: bool,
    ) -> Result<(JsonCall, Bytes, Streaming<JsonText>), Failure> {
        let is_empty = self.request.body.is_end_stream();
        check_type(&self.request.parts.headers, &[NDJSON], is_empty)?;
        let (call, options) = (self.json(), self.options);
        let found = self.found;
        let mut lines = Lines::new(self.request, options, &results.fault);
        let args = match found.method().args.is_empty() {
            true => arguments::NONE,
            false => match poll_fn(|cx| lines.poll_line(cx)).await.transpose()? {
                Some(args) => converted(&found, options, args)?,
                None => {
                    return Err(Failure::invalid(
                        "the first line, which has the arguments, is missing",
                    ));
                }
            },
        };
        if is_bidirectional {
            lines = lines.patient();
        }
        let messages = Messages::new(lines, found, options);
        Ok((call, args, Streaming::new(messages)))
    }

    fn json(&self) -> JsonCall {
        let method = self.found.method();
        let call = self.client.json(&*method.path);
        match method.idempotent {
            true => call.idempotent(),
            false => call,
        }
    }

    /// Receives the body.
    async fn body(self, accepted: &[&str]) -> Result<Bytes, Failure> {
        let request = self.request;
        check_type(
            &request.parts.headers,
            accepted,
            request.body.is_end_stream(),
        )?;
        let body = request_body::collect(request.body, request.limits, request.buffered).await?;
        request.received.store(body.len(), Ordering::Relaxed);
        Ok(body)
    }

    /// Calls a method that takes and returns raw bytes.
    async fn raw(self) -> Result<Response<ReplyBody>, Failure> {
        let (client, found) = (self.client.clone(), self.found.clone());
        let mut options = iip_core::CallOptions::new();
        if let Some(timeout) = timeout(self.options, &found, &self.request)? {
            options = options.timeout(timeout);
        }
        if let Some(key) = &self.request.hash_key {
            options = options.hash_key(key);
        }
        let body = self.body(&[BINARY]).await?;
        let path = &*found.method().path;
        let reply = client.raw().request_with(path, body, options).await;
        let reply = reply.map_err(|error| Failure::of_call(&error))?;
        // In-band IIP errors: only their content distinguishes them from data.
        let error = PlainError::read(&reply).filter(|error| error.code < 0 || error.code > 100);
        match error {
            Some(error) => Err(Failure::of_status(&error.into_status())),
            None => Ok(headers::reply(reply, BINARY, "no-store")),
        }
    }

    /// Calls a method with protobuf messages, which are passed on unchanged.
    async fn protobuf(self, results: &Results) -> Result<Response<ReplyBody>, Failure> {
        let (call, kind) = (
            self.json().encoded_in(CodecId::PROTOBUF),
            self.found.method().kind,
        );
        let body = self.body(&[PROTOBUF, "application/protobuf"]).await?;
        match kind {
            MethodKind::Unary => {
                let reply = call.unary(body).await;
                let reply = reply.map_err(|error| results.failure(error))?;
                Ok(headers::reply(reply, PROTOBUF, "no-store"))
            }
            MethodKind::OneWay => {
                let sent = call.one_way(body).await;
                sent.map_err(|error| results.failure(error))?;
                Ok(headers::empty(StatusCode::ACCEPTED))
            }
            _ => Err(Failure::of_status(&Status::unimplemented(
                "a stream of protobuf messages has no form in HTTP here",
            ))),
        }
    }
}

/// Returns the timeout that the client asks for, or that of the method, if there is one.
fn timeout(
    options: &TypedOptions,
    found: &Found,
    request: &ApiRequest<'_>,
) -> Result<Option<Duration>, Failure> {
    let method = found.method();
    let asked = headers::timeout(&request.parts.headers)?;
    let asked = asked.map(|asked| match has_one_reply(method.kind) {
        true => asked.min(options.max_timeout),
        false => asked,
    });
    Ok(asked.or_else(|| method.timeout_ms.map(Duration::from_millis)))
}

/// Returns the timeout of a call, its metadata, and the position at which a subscription resumes.
fn call_options(
    options: &TypedOptions,
    found: &Found,
    request: &ApiRequest<'_>,
) -> Result<CallOptions, Failure> {
    let (method, headers) = (found.method(), &request.parts.headers);
    let mut made = CallOptions::new();
    if let Some(timeout) = timeout(options, found, request)? {
        made = made.timeout(timeout);
    }
    made = headers::metadata(options, headers)
        .and_then(|metadata| made.append_metadata(&metadata))
        .map_err(|error| {
            Failure::refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "INVALID_ARGUMENT",
                format!("the headers cannot be metadata: {error}"),
            )
        })?;
    if let Some(key) = &request.hash_key {
        made = made.hash_key(key);
    }
    if method.kind == MethodKind::Subscription
        && let Some(position) = headers::last_event_id(headers)?
    {
        made = made.resume(position);
    }
    Ok(made)
}

/// Arguments of a client, in the form that backends read.
fn converted(found: &Found, options: &TypedOptions, args: Bytes) -> Result<Bytes, Failure> {
    if args.is_empty() {
        return Ok(arguments::NONE);
    }
    match options.json_int64 {
        JsonInt64::Number => Ok(args),
        JsonInt64::String => int64::read_arguments(found, &args),
    }
}

fn is_protobuf(found: &Found) -> bool {
    found.method().codec.as_deref() == Some("protobuf")
}

fn has_one_request(kind: MethodKind) -> bool {
    matches!(
        kind,
        MethodKind::Unary | MethodKind::ServerStream | MethodKind::Subscription
    )
}

fn has_one_reply(kind: MethodKind) -> bool {
    matches!(
        kind,
        MethodKind::Unary | MethodKind::OneWay | MethodKind::ClientStream
    )
}
