//! The server side of the machine: requests in, one answer each, in order per channel. Pure.

use std::borrow::Cow;

use bytes::Bytes;

use super::channel::{Incoming, WaitingRequest};
use super::control::{self, ControlMessage, Hello};
use super::{Connection, Event, detach};
use crate::body::Body;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Frame, FrameStatus, MAX_PATH_BYTES};
use crate::path::{check_label, label_and_query};

/// The label of an answer whose own path cannot be encoded.
const SAFE_LABEL: &[u8] = b"/";

impl Connection {
    pub(super) fn on_request_frame(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let id = frame.channel;
        self.check_head(crate::decoder::FrameHead {
            status: frame.status,
            channel: id,
        })?;
        if frame.status == FrameStatus::RequestOnly {
            self.on_request(id, frame.path, frame.body);
            return Ok(());
        }
        if frame.status == FrameStatus::RequestFirst {
            // A channel whose message is unfinished has state before it counts as a call.
            if self.channels.len() >= self.limits.channels() && self.channels.get(id).is_none() {
                return Err(ProtocolError::TooManyChannels {
                    limit: self.limits.channels(),
                });
            }
            self.receive(id, frame);
            self.begin_request(id);
            return Ok(());
        }
        let (body, ends) = (frame.body.clone(), frame.status.ends());
        let incoming = self
            .channels
            .get(id)
            .and_then(|c| c.assembly.as_ref())
            .map(|assembly| assembly.incoming);
        let complete = self.receive(id, frame);
        match incoming {
            Some(Incoming::Stream) => self.events.push_back(Event::RequestPart {
                channel: id,
                body,
                ends,
            }),
            Some(Incoming::Control) => self.on_control(body),
            _ => {}
        }
        if let Some(assembly) = complete {
            let channel = self.channels.get_or_insert(id);
            let begun = std::mem::take(&mut channel.begun);
            match assembly.incoming {
                Incoming::Collect if begun => {
                    // Its place as the open request was taken when it began.
                    channel.open = None;
                    self.open_calls -= 1;
                    self.show(id, assembly.path, assembly.data.freeze());
                }
                Incoming::Collect => self.on_request(id, assembly.path, assembly.data.freeze()),
                Incoming::Skip if assembly.too_large => {
                    // Behind other requests it waits like they do; an empty body marks it.
                    let path = channel
                        .open
                        .clone()
                        .filter(|_| begun)
                        .unwrap_or(assembly.path);
                    if begun || channel.open.is_none() {
                        self.open_too_large(id, path, assembly.size);
                    } else {
                        channel.waiting.push_back(WaitingRequest {
                            path,
                            body: Bytes::new(),
                        });
                    }
                }
                Incoming::Stream | Incoming::Skip | Incoming::Control => self.rest(id),
            }
        }
        Ok(())
    }

    /// A complete request: its turn is now, or after those before it on its channel.
    fn on_request(&mut self, id: ChannelId, path: Bytes, body: Bytes) {
        let channel = self.channels.get_or_insert(id);
        if channel.open.is_none() && channel.waiting.is_empty() {
            self.show(id, path, body);
        } else {
            self.buffered += body.len() + path.len();
            channel.waiting.push_back(WaitingRequest {
                path: detach(path),
                body: detach(body),
            });
        }
    }

    /// A request in several frames has begun; if its turn is now, the layer above may have its parts.
    fn begin_request(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let Some(assembly) = &mut channel.assembly else {
            return;
        };
        if channel.open.is_some()
            || !channel.waiting.is_empty()
            || assembly.incoming != Incoming::Collect
        {
            return;
        }
        let (label, query) = split_path(&assembly.path);
        if label == control::CONTROL.as_bytes() {
            let first = assembly.data.split().freeze();
            assembly.incoming = Incoming::Control;
            self.buffered -= first.len();
            self.on_control(first);
            return;
        }
        if check_label(&label).is_err() || is_reserved(&label) {
            return;
        }
        channel.open = Some(label.clone());
        channel.begun = true;
        self.open_calls += 1;
        self.events.push_back(Event::RequestBegun {
            channel: id,
            path: label,
            query,
        });
    }

    /// Shows a request to the layer above, or answers it here if its path is the protocol's own.
    fn show(&mut self, id: ChannelId, raw_path: Bytes, body: Bytes) {
        let (label, query) = split_path(&raw_path);
        self.channels.get_or_insert(id).open = Some(label.clone());
        self.open_calls += 1;
        if check_label(&label).is_err() {
            // Go closes, or forges a frame (defects D18, D19): answered under a label that can be encoded.
            self.channels.get_or_insert(id).open = Some(Bytes::from_static(SAFE_LABEL));
            self.reply(id, Bytes::from_static(control::NO_HANDLER), true);
        } else if is_reserved(&label) {
            let answer = self.answer_reserved(&label, &body);
            self.reply(id, answer, true);
        } else {
            self.events.push_back(Event::Request {
                channel: id,
                path: label,
                query,
                body,
            });
        }
    }

    fn open_too_large(&mut self, id: ChannelId, path: Bytes, size: usize) {
        let (label, _) = split_path(&path);
        let channel = self.channels.get_or_insert(id);
        if channel.open.replace(label.clone()).is_none() {
            self.open_calls += 1;
        }
        self.events.push_back(Event::RequestTooLarge {
            channel: id,
            path: label,
            size,
        });
    }

    fn answer_reserved(&mut self, label: &[u8], body: &[u8]) -> Bytes {
        if label == control::NEW_CHANNEL.as_bytes() {
            // S3: a grant is a number, not an allocation; only channels with state are bounded.
            if self.channels.len() > self.limits.channels() || self.granted == u32::MAX {
                return Bytes::from_static(control::CHANNEL_LIMIT);
            }
            self.granted += 1;
            return control::grant(ChannelId(self.granted));
        }
        if label == control::DELETE_CHANNEL.as_bytes() {
            // S5, S6: answered behind every earlier answer; the id stays valid.
            return Bytes::from_static(br#"{"code":0}"#);
        }
        if let Some(hello) = Hello::parse(body) {
            self.on_hello(&hello);
            self.events.push_back(Event::PeerHello(Some(hello.value)));
        }
        Hello::body(&self.announce, self.limits.frame_bytes(), true)
    }

    fn on_control(&mut self, mut part: Bytes) {
        while let Some(ControlMessage::Cancel(channel)) = ControlMessage::next(&mut part) {
            if self
                .channels
                .get(channel)
                .is_some_and(|channel| channel.open.is_some())
            {
                self.events.push_back(Event::Cancelled { channel });
            }
        }
    }

    // ---- commands

    /// Makes the parts of a request that has begun visible as they arrive.
    pub(crate) fn stream_request(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let Some(assembly) = &mut channel.assembly else {
            return;
        };
        if assembly.incoming == Incoming::Collect {
            assembly.incoming = Incoming::Stream;
            let first = assembly.data.split().freeze();
            self.buffered -= first.len();
            self.events.push_back(Event::RequestPart {
                channel: id,
                body: first,
                ends: false,
            });
        }
    }

    /// Sends an answer, or a part of one. `false` if the channel has no open request.
    pub(crate) fn reply(&mut self, id: ChannelId, body: impl Into<Body>, ends: bool) -> bool {
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        let begins = !channel.replying;
        channel.replying = !ends;
        let label = if ends {
            channel.open.take()
        } else {
            channel.open.clone()
        };
        let Some(label) = label else { return false };
        if ends {
            self.open_calls -= 1;
            if std::mem::take(&mut channel.begun) {
                // Answered before the request was complete: nobody wants the rest.
                Self::skip_incoming(&mut self.buffered, channel);
            }
        }
        self.send(id, &label, body, begins, ends);
        if ends {
            self.show_next(id);
        }
        true
    }

    /// The open request is answered: whose turn is it now?
    fn show_next(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if let Some(WaitingRequest { path, body }) = channel.waiting.pop_front() {
            if body.is_empty() {
                return self.open_too_large(id, path, self.limits.message_bytes());
            }
            self.buffered -= body.len() + path.len();
            return self.show(id, path, body);
        }
        self.begin_request(id);
        self.rest(id);
    }

    /// Keeps nothing of a channel at rest.
    fn rest(&mut self, id: ChannelId) {
        if self
            .channels
            .get(id)
            .is_some_and(super::channel::Channel::is_at_rest)
        {
            self.channels.remove(id);
        }
    }
}

/// Label and query of a path field; both share its buffer unless an escape had to be decoded.
fn split_path(raw: &Bytes) -> (Bytes, Bytes) {
    let parsed = label_and_query(raw);
    let label = match parsed.label {
        Cow::Borrowed(label) => raw.slice_ref(label),
        Cow::Owned(label) => Bytes::from(label),
    };
    (label, raw.slice_ref(parsed.query))
}

fn is_reserved(label: &[u8]) -> bool {
    label.starts_with(b"/sys/")
        && [
            control::NEW_CHANNEL,
            control::DELETE_CHANNEL,
            control::HELLO,
        ]
        .iter()
        .any(|path| path.as_bytes() == label)
}

const _: () = assert!(SAFE_LABEL.len() <= MAX_PATH_BYTES);
