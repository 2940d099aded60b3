//! Streams of protobuf messages, which are sent as [`Proto`]s. Generated code wraps and unwraps
//! them.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Streaming;
use crate::codec::Proto;

/// Wraps the messages that a caller sends, for the client to send.
pub fn protos<M: Send + 'static>(messages: Streaming<M>) -> Streaming<Proto<M>> {
    Streaming::new(Mapped(messages, Proto))
}

/// Unwraps received messages.
pub fn proto_messages<M, E>(messages: Streaming<Proto<M>, E>) -> Streaming<M, E>
where
    M: 'static,
    E: 'static,
{
    Streaming::new(Mapped(messages, Proto::into_inner))
}

/// Wraps the messages that a method returns, for the server to send.
pub fn proto_stream<S, M, E>(messages: S) -> impl Stream<Item = Result<Proto<M>, E>>
where
    S: Stream<Item = Result<M, E>>,
{
    Mapped(Box::pin(messages), Proto)
}

/// A stream that converts each message.
struct Mapped<S, A, B>(S, fn(A) -> B);

impl<S, A, B, E> Stream for Mapped<S, A, B>
where
    S: Stream<Item = Result<A, E>> + Unpin,
{
    type Item = Result<B, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<B, E>>> {
        let map = self.1;
        Pin::new(&mut self.0).poll_next(cx).map_ok(map)
    }
}
