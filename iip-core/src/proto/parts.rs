//! Parts of a message that have arrived and were not taken yet. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::decoder::SHARE_MIN_BYTES;

/// Number of waiting parts from which further ones of less than [`SMALL_BYTES`] are joined.
/// Otherwise a peer that sends single bytes to a slow reader would use many times the memory of its
/// data.
const APART: usize = 16;
const SMALL_BYTES: usize = 512;

/// Number of parts above which a queue is released once all of them were taken.
const KEPT_PARTS: usize = 64;

/// Maximum size of joined parts, in bytes.
const JOINED_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Parts {
    queue: VecDeque<Bytes>,
    /// Small parts that are being joined; they follow the queue.
    joined: BytesMut,
    bytes: usize,
    /// Number of parts at the end of the queue that may be in the memory they were read into.
    shared_parts: usize,
}

impl Parts {
    /// Adds a part. Returns `true` if it is the first that [`copy_out`](Self::copy_out) would copy.
    pub(crate) fn push(&mut self, part: Bytes) -> bool {
        self.bytes += part.len();
        let is_shared = part.len() >= SHARE_MIN_BYTES;
        if self.queue.len() < APART || part.len() >= SMALL_BYTES {
            self.close_joined();
            self.queue.push_back(part);
            // Parts after a shared one are counted although they may not be shared: copying them,
            // too, is simpler than finding them.
            if self.shared_parts > 0 || is_shared {
                self.shared_parts += 1;
            }
            return self.shared_parts == 1;
        }
        if self.joined.len() + part.len() > JOINED_BYTES {
            self.close_joined();
        }
        self.joined.extend_from_slice(&part);
        false
    }

    /// Copies the parts that came since the last call out of the memory that they were read into.
    pub(crate) fn copy_out(&mut self) {
        for part in self.queue.iter_mut().rev().take(self.shared_parts) {
            *part = Bytes::copy_from_slice(part);
        }
        self.shared_parts = 0;
    }

    /// Takes the oldest part.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.close_joined();
        }
        let part = self.queue.pop_front()?;
        self.bytes -= part.len();
        // The counted parts are the last ones, so the part that was taken is one of them only if
        // all are.
        self.shared_parts = self.shared_parts.min(self.queue.len());
        if self.queue.is_empty() && self.queue.capacity() > KEPT_PARTS {
            self.queue = VecDeque::new();
        }
        Some(part)
    }

    /// Returns the number of bytes of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn close_joined(&mut self) {
        if !self.joined.is_empty() {
            // This part is not shared, but it is queued among parts that are.
            self.shared_parts += usize::from(self.shared_parts > 0);
            self.queue
                .push_back(std::mem::take(&mut self.joined).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_out_in_order_whatever_their_size() {
        let mut parts = Parts::default();
        let mut sent = Vec::new();
        for turn in 0..2000_usize {
            let size = [1, 3, 1, 511, 512, 1, 5000][turn % 7];
            let part = vec![turn as u8; size];
            sent.extend_from_slice(&part);
            parts.push(part.into());
            assert_eq!(parts.bytes(), sent.len());
        }
        let mut taken = Vec::new();
        while let Some(part) = parts.pop() {
            taken.extend_from_slice(&part);
            assert_eq!(parts.bytes(), sent.len() - taken.len());
        }
        assert_eq!(taken, sent);
    }

    #[test]
    fn parts_that_are_left_let_go_of_what_they_were_read_into() {
        let mut buffer = BytesMut::zeroed(100_000);
        let mut parts = Parts::default();
        let mut sent = 0;
        for turn in 0..40 {
            let size = [1600, 1, 20_000, 3][turn % 4].min(buffer.len());
            sent += size;
            parts.push(buffer.split_to(size).freeze());
        }
        assert!(!buffer.try_reclaim(100_000), "they lie in it");
        parts.pop();
        parts.copy_out();
        assert!(buffer.try_reclaim(100_000), "nothing lies in it");
        let mut left = 1600;
        while let Some(part) = parts.pop() {
            left += part.len();
        }
        assert_eq!(left, sent);
    }

    #[test]
    fn parts_that_are_taken_in_time_stay_as_they_are() {
        let mut parts = Parts::default();
        for turn in 0..100_u8 {
            assert!(
                !parts.push(vec![turn; 3].into()),
                "the decoder has copied it"
            );
            assert_eq!(parts.pop().unwrap(), vec![turn; 3]);
        }
    }

    #[test]
    fn a_long_queue_is_given_back_when_it_was_taken() {
        let mut parts = Parts::default();
        for _ in 0..5000 {
            parts.push(vec![1; SMALL_BYTES].into());
        }
        assert!(parts.queue.capacity() >= 5000);
        while parts.pop().is_some() {}
        assert!(parts.queue.capacity() <= KEPT_PARTS);
    }

    #[test]
    fn many_single_bytes_cost_little_more_than_they_hold() {
        let mut parts = Parts::default();
        for _ in 0..1_000_000 {
            parts.push(Bytes::from_static(b"x"));
        }
        assert!(parts.queue.len() <= APART + 1_000_000 / JOINED_BYTES + 1);
        assert!(parts.joined.capacity() <= 2 * JOINED_BYTES);
    }
}
