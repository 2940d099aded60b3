//! The queue of calls that wait for a channel. Small calls share one buffer, so that waiting costs
//! no allocation.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::body::{Body, Data};
use crate::proto::Mode;
use crate::proto::slots::CallId;

/// Maximum size of path and data together that are copied into the buffer.
const SMALL_BYTES: usize = 1024;

/// Minimum number of entries at which abandoned ones are removed, provided that they are at least
/// half of all entries.
const SWEEP_AT: usize = 64;

/// The purpose for which a caller waits for a channel.
#[derive(Debug)]
pub(crate) enum QueueEntry {
    /// One call.
    Call { path: Bytes, body: Body, mode: Mode },
    /// A lease of the channel, for several calls in order.
    Lease,
}

#[derive(Debug)]
struct Entry {
    /// The number of calls that were queued before.
    position: u64,
    call: CallId,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The data is in the buffer.
    Small {
        path: u16,
        body: u16,
        mode: Mode,
    },
    Other(Box<QueueEntry>),
}

impl Kind {
    fn buffered(&self) -> usize {
        match self {
            Self::Small { path, body, .. } => usize::from(*path) + usize::from(*body),
            Self::Other(_) => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Path and data of the small calls, in the order of the entries.
    buffer: BytesMut,
    /// Number of calls that were queued so far.
    queued: u64,
}

impl Queue {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are parts of a kilobyte"
    )]
    /// Queues a call. Returns its position, by which it is found again.
    pub(crate) fn push_call(
        &mut self,
        call: CallId,
        path: &[u8],
        data: &mut impl Data,
        mode: Mode,
    ) -> u64 {
        let kind = if path.len() + data.len() <= SMALL_BYTES {
            self.buffer.extend_from_slice(path);
            for piece in data.pieces() {
                self.buffer.extend_from_slice(piece);
            }
            Kind::Small {
                path: path.len() as u16,
                body: data.len() as u16,
                mode,
            }
        } else {
            Kind::Other(Box::new(QueueEntry::Call {
                path: Bytes::copy_from_slice(path),
                body: data.take(),
                mode,
            }))
        };
        self.push(call, kind)
    }

    /// Queues a call that wants to lease a channel. Returns its position.
    pub(crate) fn push_lease(&mut self, call: CallId) -> u64 {
        self.push(call, Kind::Other(Box::new(QueueEntry::Lease)))
    }

    fn push(&mut self, call: CallId, kind: Kind) -> u64 {
        let position = self.queued;
        self.queued += 1;
        self.entries.push_back(Entry {
            position,
            call,
            kind,
        });
        position
    }

    pub(crate) fn pop(&mut self) -> Option<(CallId, QueueEntry)> {
        let Entry { call, kind, .. } = self.entries.pop_front()?;
        let want = match kind {
            Kind::Small { path, body, mode } => {
                let (path, body) = (usize::from(path), usize::from(body));
                let mut data = self.buffer.split_to(path + body).freeze();
                QueueEntry::Call {
                    path: data.split_to(path),
                    body: data.into(),
                    mode,
                }
            }
            Kind::Other(want) => *want,
        };
        if self.entries.is_empty() {
            // The rest of the buffer is not used any more.
            self.buffer = BytesMut::new();
        }
        Some((call, want))
    }

    /// Removes the entries of callers that have gone, if there are many; `waiting` is the number of
    /// the others.
    pub(crate) fn sweep(&mut self, waiting: usize, is_waiting: impl Fn(CallId) -> bool) {
        // This is called after each call that is queued, so there are at most `SWEEP_AT` entries,
        // or twice as many as calls may wait.
        if self.entries.len() < SWEEP_AT.max(2 * waiting) {
            return;
        }
        // The data of removed entries lies between that of others, so the rest is copied.
        let mut old = std::mem::take(&mut self.buffer);
        self.entries.retain(|entry| {
            let data = old.split_to(entry.kind.buffered());
            let keep = is_waiting(entry.call);
            if keep {
                self.buffer.extend_from_slice(&data);
            }
            keep
        });
    }

    /// Abandons the call of a caller that has gone: a large body is returned at once, and the entry
    /// is removed later.
    pub(crate) fn abandon(&mut self, position: u64) -> Option<Body> {
        // The entries are in the order of their positions, also after some were removed.
        let entry = self
            .entries
            .binary_search_by_key(&position, |entry| entry.position);
        if let Some(entry) = entry.ok().and_then(|at| self.entries.get_mut(at))
            && matches!(entry.kind, Kind::Other(_))
        {
            // The entry of a caller that has gone is skipped, so its content does not matter.
            let none = Kind::Small {
                path: 0,
                body: 0,
                mode: Mode::Whole,
            };
            if let Kind::Other(want) = std::mem::replace(&mut entry.kind, none)
                && let QueueEntry::Call { body, .. } = *want
            {
                return Some(body);
            }
        }
        None
    }

    /// Releases the memory of the queue if it is empty.
    pub(crate) fn release_when_empty(&mut self) {
        if self.entries.is_empty() {
            self.clear();
        }
    }

    /// Removes all entries. Positions are not used again.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            queued: self.queued,
            ..Self::default()
        };
    }

    /// Returns `true` if this call owns its memory instead of a part of the buffer.
    pub(crate) fn is_large(path: &[u8], body: &Body) -> bool {
        path.len() + body.len() > SMALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(token: usize) -> Mode {
        [Mode::Whole, Mode::Parts, Mode::Stream][token % 3]
    }

    fn call(want: QueueEntry) -> (Bytes, Vec<u8>, Mode) {
        let QueueEntry::Call { path, body, mode } = want else {
            panic!("a call was queued");
        };
        (path, body.pieces().concat(), mode)
    }

    #[test]
    fn calls_come_out_as_they_went_in_whatever_their_size() {
        let mut queue = Queue::default();
        let sizes = [1, SMALL_BYTES - 2, SMALL_BYTES - 1, SMALL_BYTES * 3];
        for (token, size) in sizes.into_iter().enumerate() {
            let mut body = Body::split(vec![token as u8; size - 1], "t");
            queue.push_call(CallId::of(token), b"/p", &mut body, mode_of(token));
        }
        queue.push_lease(CallId::of(9));
        for (token, size) in sizes.into_iter().enumerate() {
            let (who, want) = queue.pop().unwrap();
            assert_eq!(who, CallId::of(token));
            let (path, body, mode) = call(want);
            assert_eq!(&path[..], b"/p");
            assert_eq!(body, [vec![token as u8; size - 1], b"t".to_vec()].concat());
            assert_eq!(mode, mode_of(token));
        }
        assert!(matches!(queue.pop(), Some((who, QueueEntry::Lease)) if who == CallId::of(9)));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn sweeping_keeps_those_who_wait_with_their_data() {
        let mut queue = Queue::default();
        for token in 0..3 * SWEEP_AT {
            let mut body = Body::from(format!("body {token}"));
            queue.push_call(CallId::of(token), b"/p", &mut body, Mode::Whole);
        }
        let keep = |who: CallId| who.slot().is_multiple_of(5);
        let kept: Vec<usize> = (0..3 * SWEEP_AT)
            .filter(|&token| keep(CallId::of(token)))
            .collect();
        queue.sweep(kept.len(), keep);
        for token in kept {
            let (who, want) = queue.pop().unwrap();
            assert_eq!(who, CallId::of(token));
            assert_eq!(call(want).1, format!("body {token}").into_bytes());
        }
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_large_body_is_given_back_when_its_caller_goes() {
        let mut queue = Queue::default();
        let large = Bytes::from(vec![1; SMALL_BYTES * 2]);
        for token in 0..3 {
            let mut body = Body::from(large.clone());
            queue.push_call(CallId::of(token), b"/p", &mut body, Mode::Whole);
        }
        queue.abandon(1);
        queue.abandon(7);
        let mut pop = || queue.pop().expect("three were queued");
        assert_eq!(call(pop().1).1.len(), large.len());
        assert_eq!(call(pop().1).1.len(), 0, "nobody wants it");
        assert_eq!(call(pop().1).1.len(), large.len());
        assert!(large.is_unique());
    }

    #[test]
    fn a_few_abandoned_entries_are_not_worth_sweeping() {
        let mut queue = Queue::default();
        for token in 0..SWEEP_AT - 1 {
            queue.push_lease(CallId::of(token));
        }
        queue.sweep(0, |_| panic!("nobody is asked"));
        assert!(queue.pop().is_some());
    }
}
