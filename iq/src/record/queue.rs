//! The queue of records from the connections to the file. Connections never wait for the file:
//! records that do not fit into the queue are counted and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::filter::Payload;
use crate::capture::Record;

/// Maximum number of bytes in the queue.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The number of bytes that a record counts for, in addition to its payload.
const RECORD_BYTES: usize = 512;

/// A record whose payload has not been processed yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) record: Record,
    /// The path of the call, and the payload.
    pub(super) payload: Option<(Arc<str>, Payload)>,
}

impl Draft {
    fn bytes(&self) -> usize {
        let payload = self.payload.as_ref();
        RECORD_BYTES + payload.map_or(0, |(_, payload)| payload.bytes.len())
    }
}

/// The state that the queue and its users share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) started: Instant,
    bytes: AtomicUsize,
    /// Number of dropped records that the file does not report yet.
    lost: AtomicU64,
    /// Set once the recording has ended.
    ended: AtomicBool,
    calls: AtomicU64,
    connections: AtomicU64,
    /// Bytes that connections hold for incomplete messages.
    pub(super) held: AtomicUsize,
}

impl Shared {
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends the recording.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns the number of records that were dropped since the previous call.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Returns the number of the next call.
    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the time since the recording began, in microseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The sending half of the queue, for connections.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: Sender<Draft>,
    pub(super) shared: Arc<Shared>,
}

/// The receiving half of the queue, for the file.
#[derive(Debug)]
pub(super) struct Drafts {
    receiver: Receiver<Draft>,
    pub(super) shared: Arc<Shared>,
}

/// The error if all senders are gone.
pub(super) struct Over;

pub(super) fn queue() -> (Queue, Drafts) {
    // The content of the channel is bounded by `Shared::bytes`.
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared {
        started: Instant::now(),
        bytes: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        held: AtomicUsize::new(0),
    });
    let queue = Queue {
        sender,
        shared: Arc::clone(&shared),
    };
    (queue, Drafts { receiver, shared })
}

impl Queue {
    /// Queues a record. Returns `false` if it was dropped.
    pub(super) fn push(&self, draft: Draft) -> bool {
        let (shared, bytes) = (&self.shared, draft.bytes());
        if shared.has_ended() {
            return false;
        }
        let before = shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The largest message fits into an empty queue.
        let fits = before.saturating_add(bytes) <= MAX_BYTES;
        if fits && self.sender.send(draft).is_ok() {
            return true;
        }
        shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        shared.lost.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Drafts {
    /// Takes the next record; `None` if the queue is empty.
    pub(super) fn try_next(&self) -> Result<Option<Draft>, Over> {
        match self.receiver.try_recv() {
            Ok(draft) => Ok(Some(self.taken(draft))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Over),
        }
    }

    /// Waits for the next record; `None` if none arrives within this time.
    pub(super) fn next(&self, timeout: Duration) -> Result<Option<Draft>, Over> {
        match self.receiver.recv_timeout(timeout) {
            Ok(draft) => Ok(Some(self.taken(draft))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Over),
        }
    }

    fn taken(&self, draft: Draft) -> Draft {
        let bytes = draft.bytes();
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        draft
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use iip_rpc::codec::CodecId;
    use iip_rpc::compression::CompressionId;

    use super::*;
    use crate::capture::Moment;

    fn draft(bytes: usize) -> Draft {
        let payload = Payload {
            bytes: Bytes::from(vec![0; bytes]),
            size: bytes,
            codec: CodecId::RAW,
            compression: CompressionId::NONE,
            part: None,
            left_out: None,
        };
        Draft {
            record: Record::Cancelled(Moment { call: 1, at: 1 }),
            payload: Some(("/echo".into(), payload)),
        }
    }

    #[test]
    fn what_the_file_cannot_take_is_dropped_and_counted() {
        let (queue, drafts) = queue();
        let most = MAX_BYTES / (1024 * 1024);
        let pushed = (0..most + 3).filter(|_| queue.push(draft(1024 * 1024)));
        assert_eq!(pushed.count(), most - 1);
        assert_eq!((queue.shared.take_lost(), queue.shared.take_lost()), (4, 0));
        assert!(matches!(drafts.try_next(), Ok(Some(_))));
        assert!(queue.push(draft(1024 * 1024)));
        queue.shared.end();
        assert!(!queue.push(draft(0)));
        assert_eq!(queue.shared.take_lost(), 0);
        drop(queue);
        while let Ok(next) = drafts.try_next() {
            assert!(next.is_some());
        }
        assert_eq!(drafts.shared.bytes.load(Ordering::Relaxed), 0);
    }
}
