//! The frames that the server sends.

use bytes::Bytes;
use iip_core::__wire::StreamMark;
use iip_core::frame::Frame;

use super::{Kind, Tap, hello_of, popped};
use crate::capture::Record;
use crate::record::channel::{Exchange, Incoming, Stream, Waiting};
use crate::record::message::{self, Collected};

impl Tap {
    /// Handles a frame of the server.
    pub(super) fn replied(&mut self, frame: Frame) -> Result<(), String> {
        let Frame {
            status,
            channel: id,
            mut body,
            ..
        } = frame;
        let surplus = || "a reply has no request".to_owned();
        let mut channel = self.taken(id).ok_or_else(surplus)?;
        let waiting = channel.waiting.front_mut().ok_or_else(surplus)?;
        if let Exchange::Stream(stream) = &mut waiting.exchange
            && waiting.reply.is_none()
        {
            match StreamMark::take(&mut body) {
                None | Some(StreamMark::Reply) => {}
                Some(mark) => {
                    if mark == StreamMark::Data {
                        self.stream_of_server(stream, body)?;
                    }
                    if status.ends() {
                        return Err("a stream ends without a reply".to_owned());
                    }
                    self.put(id, channel);
                    return Ok(());
                }
            }
        }
        let payloads = self.recorder.filter.payloads();
        let reply = waiting
            .reply
            .get_or_insert_with(|| Collected::new(payloads));
        // Replies on the control stream and other reserved paths do not belong to calls.
        if !matches!(waiting.exchange, Exchange::Control | Exchange::Other) {
            reply.add(body);
        }
        if status.ends() {
            if let Some(waiting) = channel.waiting.pop_front() {
                self.waiting -= 1;
                self.end(waiting);
            }
            if channel.waiting.is_empty() && matches!(channel.incoming, Some(Incoming::Last)) {
                channel.incoming = Some(Incoming::Replied);
            }
        }
        self.put(id, channel);
        Ok(())
    }

    /// Handles a frame of a stream of the server.
    fn stream_of_server(&self, stream: &mut Stream, body: Bytes) -> Result<(), String> {
        stream.replies.feed(body);
        while let Some((compression, message)) = popped(&mut stream.replies)? {
            // The first message accepts the call.
            match std::mem::replace(&mut stream.accepted, true) {
                true => self.message(&mut stream.call, false, compression, message),
                false => {
                    stream.metadata = message::accepted(compression, message, &self.recorder.filter)
                }
            }
        }
        Ok(())
    }

    /// Handles a complete reply.
    fn end(&mut self, waiting: Waiting) {
        let reply = waiting.reply.unwrap_or_default();
        let mut metadata = Vec::new();
        let (call, accepted) = match waiting.exchange {
            Exchange::Hello(_) => {
                let hello = hello_of(reply);
                let known = &self.recorder.build;
                let other = known.as_ref().is_some_and(|known| *known != hello.rpc.fp);
                self.is_described = !other || hello.rpc.fp.is_empty();
                if !self.is_described {
                    self.recorder.note_other_build();
                }
                return;
            }
            Exchange::Control | Exchange::Other => return,
            // The server has replied before the end of the request.
            Exchange::Call(mut call, Some(request)) => {
                self.request(&mut call, request, Kind::Call);
                (call, false)
            }
            Exchange::Call(call, None) => (call, false),
            Exchange::Stream(stream) => {
                metadata = stream.metadata;
                (stream.call, stream.accepted)
            }
        };
        if !call.is_known {
            return;
        }
        let (at, filter) = (self.now(), &self.recorder.filter);
        let (mut reply, payload) = message::reply(call.id, at, reply, call.form, accepted, filter);
        reply.metadata.splice(..0, metadata);
        reply.incomplete = call.is_incomplete;
        let payload = self.checked(&call.path, payload);
        self.push(Record::Reply(reply), Some((call.path, payload)));
    }
}
