//! The calls over the connections to all targets, in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use iip_rpc::envelope::PlainError;
use iip_rpc::schema::MethodKind;
use iip_rpc::{Client, JsonCall, JsonError, JsonText, Status, Streaming};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::measured::Messages;
use super::payload::Sending;
use super::work::{Failed, Kind, Work};
use crate::connection::{ConnectArgs, Connection};
use crate::exit::Outcome;
use crate::output::Output;
use crate::raw;

/// The calls of a thread.
#[derive(Debug)]
pub(super) struct Caller {
    work: Work,
    calls: Vec<Call>,
    next: AtomicUsize,
    /// The timeout of each call.
    timeout: Duration,
}

/// The content of one call.
#[derive(Debug)]
pub(super) struct Request {
    body: Bytes,
    messages: Option<Sending>,
}

/// The way to call over a connection.
#[derive(Debug)]
enum Call {
    Raw {
        client: iip_core::Client,
        path: Box<str>,
    },
    Unary(JsonCall),
    OneWay {
        call: JsonCall,
        client: Client,
        /// Set once the channel for one-way calls is open.
        is_open: OnceCell<()>,
    },
    /// A call with streams, in JSON.
    Streams(MethodKind, JsonCall),
}

impl Call {
    fn new(work: &Work, connection: &Connection) -> Self {
        let client = &connection.client;
        let json = || client.json(&*work.path);
        let (described, codec) = match &work.kind {
            Kind::Raw => {
                return Self::Raw {
                    client: client.raw().clone(),
                    path: work.path.clone().into(),
                };
            }
            Kind::Path => return Self::Unary(json()),
            Kind::Method { described, codec } => (described, *codec),
        };
        let method = &described.1;
        let call = match method.idempotent {
            true => json().idempotent(),
            false => json(),
        };
        match method.kind {
            MethodKind::Unary => Self::Unary(call.encoded_in(codec)),
            MethodKind::OneWay => Self::OneWay {
                call: call.encoded_in(codec),
                client: client.clone(),
                is_open: OnceCell::new(),
            },
            kind => Self::Streams(kind, call),
        }
    }
}

impl Caller {
    /// Opens `connections` connections to each target.
    pub(super) async fn connect(
        work: Work,
        connections: u32,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Outcome<Self> {
        let (mut calls, mut timeout) = (Vec::new(), Duration::ZERO);
        for _ in 0..connections {
            for target in &work.targets {
                let connection = connect.connect(target, output).await?;
                timeout = connection.timeout;
                calls.push(Call::new(&work, &connection));
            }
        }
        Ok(Self {
            work,
            calls,
            next: AtomicUsize::new(0),
            timeout,
        })
    }

    /// Makes the content of the next call.
    pub(super) fn prepare(&self, random: &mut Rng) -> Result<Request, String> {
        let messages = self.work.messages.as_ref();
        Ok(Request {
            body: self.work.payload.next(random)?,
            messages: messages.map(|messages| messages.next(random)),
        })
    }

    /// Returns `true` if preparing a call takes no time.
    pub(super) fn is_prepared(&self) -> bool {
        self.work.payload.is_fixed()
    }

    /// Returns `true` if calls have no reply.
    pub(super) fn is_one_way(&self) -> bool {
        self.work.is_one_way()
    }

    /// Makes a call, and returns the numbers of messages of its streams.
    pub(super) async fn call(&self, request: Request) -> Result<Messages, Failed> {
        let at = match self.calls.len() {
            1 => 0,
            all => self.next.fetch_add(1, Ordering::Relaxed) % all,
        };
        let Request { body, messages } = request;
        let called = match &self.calls[at] {
            Call::Unary(call) => call.clone().unary(body).await.map(drop),
            Call::OneWay {
                call,
                client,
                is_open,
            } => one_way(call, client, is_open, body, self.timeout).await,
            Call::Raw { client, path } => {
                return match client.request(path, body).await {
                    Ok(reply) => match PlainError::read(&reply) {
                        // This is the only way to tell an error from data.
                        Some(error) => Err(error.into_status().into()),
                        None => Ok(Messages::default()),
                    },
                    Err(error) => Err(raw::status_of(&error).into()),
                };
            }
            Call::Streams(kind, call) => {
                // Boxed, so that the future of a call without streams stays small.
                let exchange = Box::pin(exchange(*kind, call.clone(), body, messages));
                let in_time = tokio::time::timeout(self.timeout, exchange).await;
                return match in_time {
                    Ok(exchanged) => exchanged.map_err(|error| self.work.failed(error)),
                    Err(_) => Err(late().into()),
                };
            }
        };
        match called {
            Ok(()) => Ok(Messages::default()),
            Err(error) => Err(self.work.failed(error)),
        }
    }

    /// Writes one-way calls that are still queued, and closes their connections. Returns `false` if
    /// this takes longer than the timeout of a call.
    pub(super) async fn finish(&self) -> bool {
        let deadline = Instant::now() + self.timeout;
        let mut closing = JoinSet::new();
        for call in &self.calls {
            if let Call::OneWay { client, .. } = call {
                let (client, timeout) = (client.clone(), self.timeout);
                closing.spawn(async move { client.close(timeout).await });
            }
        }
        closing.join_all().await;
        Instant::now() < deadline
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the call has not ended in time (option --timeout)")
}

/// Makes a one-way call. The first one opens the channel of such calls, which needs the control
/// stream of the connection. Until the channel is open, one-way calls would be ordinary calls whose
/// replies nobody waits for, so other calls wait until the first one has opened it.
async fn one_way(
    call: &JsonCall,
    client: &Client,
    is_open: &OnceCell<()>,
    body: Bytes,
    timeout: Duration,
) -> Result<(), JsonError> {
    if !is_open.initialized() {
        let mut first = None;
        // If it fails, the following calls report the failure.
        let round_trip = async || drop(client.raw().request("/sys/ping", "{}").await);
        let opening = async {
            round_trip().await;
            first = Some(call.clone().one_way(body.clone()).await);
            round_trip().await;
        };
        let in_time = tokio::time::timeout(timeout, is_open.get_or_init(|| opening)).await;
        in_time.map_err(|_| late())?;
        if let Some(first) = first {
            return first;
        }
    }
    call.clone().one_way(body).await
}

/// Makes a call with streams, up to the end of the reply.
async fn exchange(
    kind: MethodKind,
    call: JsonCall,
    body: Bytes,
    messages: Option<Sending>,
) -> Result<Messages, JsonError> {
    let Some(messages) = messages else {
        let received = count(call.server_stream(body).await?).await?;
        return Ok(Messages { sent: 0, received });
    };
    let sent = messages.sent();
    let messages = Streaming::new(messages);
    let received = match kind {
        MethodKind::ClientStream => {
            call.client_stream(body, messages).await?;
            0
        }
        _ => count(call.bidi_stream(body, messages).await?).await?,
    };
    Ok(Messages {
        sent: sent.load(Ordering::Relaxed),
        received,
    })
}

/// Receives all messages, and returns their number.
async fn count(mut messages: Streaming<JsonText, JsonError>) -> Result<u64, JsonError> {
    let mut count = 0;
    while let Some(message) = messages.next().await {
        message?;
        count += 1;
    }
    Ok(count)
}
