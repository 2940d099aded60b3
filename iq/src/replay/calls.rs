//! Calls, assembled from the records of a recording.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;

use bytes::Bytes;

use crate::capture::{Body, Reader, Record, Reply, Request, Services};
use crate::exit::{Failure, Outcome};

/// The maximum number of bytes of messages of one call.
const MAX_CALL_BYTES: usize = 64 * 1024 * 1024;

/// The maximum number of bytes of all calls in memory.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// The number of bytes that a call counts for, in addition to its payloads.
const CALL_BYTES: usize = 1024;

/// The number of bytes that an entry of metadata counts for, in addition to its own.
const ENTRY_BYTES: usize = 64;

/// The maximum size, in bytes, and number of complete calls that wait for one that began earlier.
const MAX_READY_BYTES: usize = 32 * 1024 * 1024;
const MAX_READY: usize = 10_000;

/// A recorded call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    /// The messages of the client.
    pub(super) requests: Vec<Body>,
    /// Set once the stream of the client has ended.
    pub(super) has_ended: bool,
    /// The messages of the server.
    pub(super) messages: Vec<Body>,
    pub(super) cancelled: bool,
    pub(super) reply: Option<Reply>,
    /// Set if the messages are too large to be kept.
    pub(super) is_too_large: bool,
    /// The positions of the first and the last record of the call among all records.
    pub(super) began: u64,
    pub(super) ended: u64,
    bytes: usize,
}

impl Call {
    fn new(request: Request, began: u64) -> Self {
        let bytes = CALL_BYTES + size_of_metadata(&request.metadata) + size(&request.body);
        Self {
            request,
            requests: Vec::new(),
            has_ended: false,
            messages: Vec::new(),
            cancelled: false,
            reply: None,
            is_too_large: false,
            began,
            ended: began,
            bytes,
        }
    }
}

fn size(body: &Body) -> usize {
    let bytes = body.bytes.as_ref().map_or(0, Bytes::len);
    bytes + size_of::<Body>()
}

fn size_of_metadata(metadata: &[(String, Bytes)]) -> usize {
    let entries = metadata.iter();
    entries
        .map(|(key, value)| ENTRY_BYTES + key.len() + value.len())
        .sum()
}

/// The calls of a recording, in the order in which they began. A long call comes later if too many
/// others would have to wait for it.
#[derive(Debug)]
pub(super) struct Calls {
    reader: Reader<BufReader<File>>,
    pub(super) services: Services,
    /// The number of records that were read so far.
    position: u64,
    /// The calls without a reply, by their numbers and by the positions of their requests.
    open: HashMap<u64, Call>,
    beginnings: BTreeMap<u64, u64>,
    /// The connections with the numbers of their open calls.
    connections: BTreeSet<(u64, u64)>,
    /// The complete calls, by the positions of their requests.
    ready: BTreeMap<u64, Call>,
    open_bytes: usize,
    ready_bytes: usize,
    /// Set once all records were read.
    is_over: bool,
    /// The number of records that the recorder has dropped.
    pub(super) lost: u64,
}

impl Calls {
    pub(super) fn new(reader: Reader<BufReader<File>>) -> Self {
        Self {
            reader,
            services: Services::default(),
            position: 0,
            open: HashMap::new(),
            beginnings: BTreeMap::new(),
            connections: BTreeSet::new(),
            ready: BTreeMap::new(),
            open_bytes: 0,
            ready_bytes: 0,
            is_over: false,
            lost: 0,
        }
    }

    /// Returns a remark about the end of the file, once there are no more calls.
    pub(super) fn remark(&self) -> Option<String> {
        self.reader.remark()
    }

    pub(super) fn next(&mut self) -> Outcome<Option<Call>> {
        loop {
            if let Some(call) = self.pop() {
                return Ok(Some(call));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.reader.next()? {
                Some(record) => self.add(record)?,
                None => {
                    self.is_over = true;
                    let open: Vec<u64> = self.open.keys().copied().collect();
                    // No replies to these calls can follow.
                    open.into_iter().for_each(|id| self.complete(id));
                }
            }
        }
    }

    /// Returns the next call, unless one that began earlier may still follow.
    fn pop(&mut self) -> Option<Call> {
        let (&began, _) = self.ready.first_key_value()?;
        let before = self.beginnings.first_key_value();
        let waits = before.is_some_and(|(&other, _)| other < began);
        if waits && self.ready.len() < MAX_READY && self.ready_bytes < MAX_READY_BYTES {
            return None;
        }
        let (_, call) = self.ready.pop_first()?;
        self.ready_bytes -= call.bytes;
        Some(call)
    }

    fn add(&mut self, record: Record) -> Outcome {
        self.position += 1;
        match record {
            Record::Service(service) => self.services.add(*service)?,
            Record::Request(request) => self.begin(request)?,
            Record::Message(message) => {
                self.message(message.call, message.of_client, message.body)?
            }
            Record::StreamEnd(moment) => {
                if let Some(call) = self.open.get_mut(&moment.call) {
                    call.has_ended = true;
                }
            }
            Record::Cancelled(moment) => {
                if let Some(call) = self.open.get_mut(&moment.call) {
                    call.cancelled = true;
                }
            }
            Record::Reply(reply) => {
                let id = reply.call;
                if let Some(call) = self.open.get_mut(&id) {
                    let more = size_of_metadata(&reply.metadata) + size(&reply.body);
                    call.bytes += more;
                    self.open_bytes += more;
                    call.reply = Some(reply);
                }
                self.complete(id);
            }
            Record::Closed(closed) => {
                let connection = closed.connection;
                let range = (connection, 0)..=(connection, u64::MAX);
                let open = self.connections.range(range);
                let open: Vec<u64> = open.map(|(_, id)| *id).collect();
                open.into_iter().for_each(|id| self.complete(id));
            }
            Record::Lost(lost) => self.lost = self.lost.saturating_add(lost.records),
            Record::Begin(_) | Record::Opened(_) | Record::End(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, request: Request) -> Outcome {
        let (id, one_way) = (request.call, request.one_way);
        if self.open.contains_key(&id) {
            let text = format!("the recording has two calls with the number {id}");
            return Err(Failure::Own(text));
        }
        let call = Call::new(request, self.position);
        self.open_bytes += call.bytes;
        self.beginnings.insert(call.began, id);
        self.connections.insert((call.request.connection, id));
        self.open.insert(id, call);
        if one_way {
            self.complete(id);
        }
        self.check()
    }

    fn message(&mut self, id: u64, of_client: bool, body: Body) -> Outcome {
        // The request may be among the lost records.
        let Some(call) = self.open.get_mut(&id) else {
            return Ok(());
        };
        let more = size(&body);
        if call.bytes + more > MAX_CALL_BYTES {
            call.is_too_large = true;
        }
        if call.is_too_large {
            return Ok(());
        }
        call.bytes += more;
        self.open_bytes += more;
        match of_client {
            true => call.requests.push(body),
            false => call.messages.push(body),
        }
        self.check()
    }

    fn check(&self) -> Outcome {
        match self.open_bytes + self.ready_bytes > MAX_BYTES {
            true => Err(Failure::Own(format!(
                "the calls of the recording that are open at the same time have more than \
                 {MAX_BYTES} bytes"
            ))),
            false => Ok(()),
        }
    }

    fn complete(&mut self, id: u64) {
        let Some(mut call) = self.open.remove(&id) else {
            return;
        };
        self.beginnings.remove(&call.began);
        self.connections.remove(&(call.request.connection, id));
        self.open_bytes -= call.bytes;
        self.ready_bytes += call.bytes;
        call.ended = self.position;
        self.ready.insert(call.began, call);
    }
}

#[cfg(test)]
mod tests;
