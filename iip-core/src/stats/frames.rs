//! Frames by channel, for the statistics of Go, which list the channels of each connection.

use std::collections::BTreeMap;

use super::snapshot::Traffic;
use crate::frame::ChannelId;

/// The maximum number of channels of a connection that are counted apart.
const MAX_CHANNELS: usize = 256;

/// The frames of one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameCounts {
    /// All channels.
    pub(crate) total: Traffic,
    pub(crate) channels: BTreeMap<u32, Traffic>,
}

impl FrameCounts {
    /// Counts a frame of `bytes`, which ends a message if `ends`.
    pub(crate) fn add(&mut self, channel: ChannelId, bytes: usize, ends: bool) {
        let one = Traffic {
            frames: 1,
            messages: u64::from(ends),
            bytes: bytes as u64,
        };
        self.total.merge(one);
        if let Some(known) = self.channels.get_mut(&channel.0) {
            known.merge(one);
        } else if self.channels.len() < MAX_CHANNELS {
            self.channels.insert(channel.0, one);
        }
    }
}
