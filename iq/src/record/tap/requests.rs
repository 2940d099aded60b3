//! The frames that the client sends.

use bytes::Bytes;
use iip_core::__wire::{ControlMessage, StreamMark, begins_stream};
use iip_core::frame::{ChannelId, Frame, FrameStatus};
use iip_core::path::label_and_query;
use iip_rpc::compression::CompressionId;

use super::{Kind, MAX_WAITING, Tap, hello_of, popped};
use crate::capture::{Moment, Record};
use crate::record::channel::{Call, Channel, Exchange, Incoming, Stream, Waiting};
use crate::record::message::Collected;

impl Tap {
    /// Handles a frame of the client.
    pub(super) fn requested(&mut self, frame: Frame) -> Result<(), String> {
        let Frame {
            status,
            path,
            channel: id,
            body,
        } = frame;
        let mut channel = self.taken(id).unwrap_or_default();
        if status.begins() != channel.incoming.is_none() {
            return Err("a request begins within another, or goes on before it begins".to_owned());
        }
        if status.begins() {
            self.begin(id, &mut channel, &path, status, &body)?;
        }
        self.go_on(&mut channel, body, status.ends())?;
        self.put(id, channel);
        Ok(())
    }

    /// Handles the beginning of a request.
    fn begin(
        &mut self,
        id: ChannelId,
        channel: &mut Channel,
        path: &[u8],
        status: FrameStatus,
        body: &Bytes,
    ) -> Result<(), String> {
        let label = label_and_query(path).label;
        let payloads = self.recorder.filter.payloads();
        let exchange = match &*label {
            b"/sys/hello" => Exchange::Hello(Collected::new(false)),
            b"/sys/control" => Exchange::Control,
            other if other.starts_with(b"/sys/") => Exchange::Other,
            _ => {
                let shared = &self.recorder.queue.shared;
                let path = self.recorder.filter.path(path).into();
                let call = Call::new(shared.next_call(), shared.now(), path);
                let is_stream = status == FrameStatus::RequestFirst;
                if self.one_way == Some(id) {
                    channel.incoming = Some(Incoming::OneWay(call, Collected::new(payloads)));
                    return Ok(());
                }
                match is_stream && self.streams && begins_stream(body) {
                    true => Exchange::Stream(Box::new(Stream::new(call))),
                    false => Exchange::Call(call, Some(Collected::new(payloads))),
                }
            }
        };
        channel.incoming = Some(match self.one_way == Some(id) {
            true => Incoming::Replied,
            false => Incoming::Last,
        });
        if self.one_way != Some(id) {
            self.waiting += 1;
            if self.waiting > MAX_WAITING {
                return Err(format!("more than {MAX_WAITING} requests wait for replies"));
            }
            channel.waiting.push_back(Waiting::new(exchange));
        }
        Ok(())
    }

    /// Handles a frame of the request that is arriving.
    fn go_on(&mut self, channel: &mut Channel, body: Bytes, ends: bool) -> Result<(), String> {
        match channel.incoming.take() {
            Some(Incoming::OneWay(mut call, mut request)) => {
                request.add(body);
                match ends {
                    true => self.request(&mut call, request, Kind::OneWay),
                    false => channel.incoming = Some(Incoming::OneWay(call, request)),
                }
                return Ok(());
            }
            Some(Incoming::Last) => channel.incoming = (!ends).then_some(Incoming::Last),
            replied => {
                channel.incoming = replied.filter(|_| !ends);
                return Ok(());
            }
        }
        let Some(last) = channel.waiting.back_mut() else {
            return Ok(());
        };
        match &mut last.exchange {
            Exchange::Hello(hello) => {
                hello.add(body);
                if ends {
                    let hello = hello_of(std::mem::take(hello));
                    self.streams = hello.stream_window.as_u64().is_some_and(|bytes| bytes > 0);
                }
            }
            Exchange::Control => self.control(body),
            Exchange::Other => {}
            Exchange::Call(call, request) => {
                if let Some(collected) = request {
                    collected.add(body);
                }
                if let Some(collected) = request.take_if(|_| ends) {
                    self.request(call, collected, Kind::Call);
                }
            }
            Exchange::Stream(stream) => self.stream_of_client(stream, body)?,
        }
        Ok(())
    }

    fn control(&mut self, mut body: Bytes) {
        while let Some(message) = ControlMessage::next(&mut body) {
            match message {
                ControlMessage::OneWay(id) => self.one_way = Some(id),
                ControlMessage::Cancel(id) => {
                    let waiting = self
                        .channels
                        .get(&id)
                        .and_then(|channel| channel.waiting.front());
                    if let Some(call) = waiting.and_then(Waiting::call) {
                        self.cancelled(call);
                    }
                }
                ControlMessage::GoingAway => {}
            }
        }
    }

    fn cancelled(&self, call: &Call) {
        if call.is_known {
            let (call, at) = (call.id, self.now());
            self.push(Record::Cancelled(Moment { call, at }), None);
        }
    }

    /// Handles a frame of a stream of the client.
    fn stream_of_client(&self, stream: &mut Stream, mut body: Bytes) -> Result<(), String> {
        let mark = StreamMark::take(&mut body).ok_or("a frame of a stream has no mark")?;
        match mark {
            StreamMark::Data | StreamMark::Last => {
                stream.requests.feed(body);
                while let Some((compression, message)) = popped(&mut stream.requests)? {
                    self.message_of_client(stream, compression, message);
                }
                if mark == StreamMark::Last && stream.call.is_known {
                    let (call, at) = (stream.call.id, self.now());
                    let pushed = self.push(Record::StreamEnd(Moment { call, at }), None);
                    stream.call.is_incomplete |= !pushed;
                }
            }
            StreamMark::Cancel => self.cancelled(&stream.call),
            StreamMark::Reply | StreamMark::Other => {}
        }
        Ok(())
    }

    fn message_of_client(&self, stream: &mut Stream, compression: CompressionId, message: Bytes) {
        if stream.begun {
            self.message(&mut stream.call, true, compression, message);
            return;
        }
        stream.begun = true;
        let mut collected = Collected::new(true);
        collected.add(message);
        self.request(&mut stream.call, collected, Kind::Stream);
    }
}
