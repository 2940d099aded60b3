//! The plan of the next read.

use super::node::{Kind, Node, Seen};

/// Farther than anything.
pub(super) const FAR: u32 = u32::MAX;

/// All kinds of values that a node of kind [`Kind::Any`] is given.
pub(super) const ALL_KINDS: u8 = 0xFF;

/// The distances from all nodes to what is not known yet, and the sizes of their values.
#[derive(Debug, Default)]
pub(super) struct Plan {
    distance: Vec<u32>,
    height: Vec<u32>,
}

impl Plan {
    pub(super) fn new(nodes: &[Node], readable: bool) -> Self {
        let mut plan = Self {
            distance: nodes
                .iter()
                .map(|node| if is_pending(node, readable) { 0 } else { FAR })
                .collect(),
            height: vec![FAR; nodes.len()],
        };
        // Each round that changes something makes a number smaller, or finite.
        while plan.improve(nodes) {}
        plan
    }

    fn improve(&mut self, nodes: &[Node]) -> bool {
        let mut changed = false;
        // Nodes come after those that contain them.
        for (place, node) in nodes.iter().enumerate().rev() {
            let slots = node.slots.iter().filter(|slot| !slot.abandoned);
            let nearest = slots.map(|slot| self.distance(&slot.seen)).min();
            let distance = nearest.unwrap_or(FAR).saturating_add(1);
            let heights = node.slots.iter().map(|slot| self.height(&slot.seen));
            let height = match node.kind {
                Kind::Enum => heights.min(),
                _ => heights.max(),
            };
            let height = height.unwrap_or(0).saturating_add(1);
            changed |= distance < self.distance[place] || height < self.height[place];
            self.distance[place] = self.distance[place].min(distance);
            self.height[place] = self.height[place].min(height);
        }
        changed
    }

    /// Returns the distance from a place of this type to something that is not known.
    pub(super) fn distance(&self, seen: &Seen) -> u32 {
        match seen {
            Seen::Nothing => 0,
            Seen::Node(node) => self.distance.get(*node).copied().unwrap_or(0),
            _ => seen
                .parts()
                .map(|part| self.distance(part))
                .min()
                .unwrap_or(FAR),
        }
    }

    /// Returns the depth of the smallest value of this type.
    pub(super) fn height(&self, seen: &Seen) -> u32 {
        match seen {
            Seen::Nothing => FAR,
            Seen::Node(node) => self.height.get(*node).copied().unwrap_or(FAR),
            Seen::Tuple(parts) => {
                let heights = parts.iter().map(|part| self.height(part));
                heights.max().unwrap_or(0)
            }
            Seen::Array(of, _) => self.height(of),
            _ => 0,
        }
    }
}

/// Returns `true` if something is left to find out about the node itself.
pub(super) fn is_pending(node: &Node, readable: bool) -> bool {
    match node.kind {
        Kind::Unit => false,
        Kind::Newtype | Kind::Tuple => node.has_gap(),
        Kind::Struct => node.has_gap() || (readable && experiment(node) != Experiment::None),
        Kind::Enum => node.has_gap() || (readable && node.denies_unknown.is_none()),
        Kind::Adjacent(_) => false,
        Kind::Any => node.tried != ALL_KINDS,
        Kind::Tagged => !node.defaults_known,
        Kind::Flat => node.has_gap() || !node.defaults_known,
    }
}

/// An experiment with the names of a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Experiment {
    None,
    /// A name that it does not have.
    Unknown,
    /// This field twice.
    Twice(usize),
    /// The fields that are known to be required, alone.
    Required,
}

/// Returns the next experiment with a struct whose fields are known.
pub(super) fn experiment(node: &Node) -> Experiment {
    if node.denies_unknown.is_none() {
        return Experiment::Unknown;
    }
    let aliased = (0..node.slots.len())
        .find(|&slot| node.slots[slot].primary.is_none() && node.has_aliases(slot));
    match aliased {
        Some(slot) => Experiment::Twice(slot),
        None if node.defaults_known => Experiment::None,
        None => Experiment::Required,
    }
}
