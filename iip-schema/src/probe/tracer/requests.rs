//! Leaves, and types without a name.

use super::{Ask, Id, PARTS, Shape, Tracer, Who, is_of_serde};
use crate::probe::fault::{Cause, Fault};
use crate::probe::node::{Kind, Node, Seen, Slot};
use crate::probe::plan::FAR;
use crate::probe::samples;
use crate::types::Type;

impl Tracer {
    pub(in crate::probe) fn leaf_failed(&mut self, id: Who, fault: Fault) {
        if fault.cause() == Cause::UnknownName {
            return;
        }
        if let Some(cause) = fault.handle() {
            let refused = self.refused.entry(id().visitor).or_default();
            if *refused < samples::ROUNDS {
                *refused += if cause == Cause::Refused {
                    1
                } else {
                    samples::ROUNDS
                };
                self.progress += 1;
            }
        }
    }

    pub(super) fn leaf(&mut self, id: Id, ty: Type) -> Result<usize, Fault> {
        self.seen = Seen::Is(ty);
        self.step()?;
        Ok(self.refused.get(id.visitor).copied().unwrap_or(0) + self.round)
    }

    pub(in crate::probe) fn number(&mut self, who: Who, ty: Type) -> Result<u8, Fault> {
        let id = who();
        Ok(samples::number(self.leaf(id, ty)?))
    }

    pub(in crate::probe) fn bytes(&mut self, who: Who) -> Result<&'static [u8], Fault> {
        let id = who();
        Ok(samples::bytes(self.leaf(id, Type::Bytes)?))
    }

    pub(in crate::probe) fn text(&mut self, who: Who) -> Result<&'static str, Fault> {
        let id = who();
        if let Some(name) = self.name.take() {
            self.step()?;
            return Ok(name);
        }
        Ok(samples::text(self.leaf(id, Type::Text)?))
    }

    pub(in crate::probe) fn unit(&mut self, who: Who) -> Result<(), Fault> {
        let id = who();
        self.leaf(id, Type::Unit).map(drop)
    }

    pub(in crate::probe) fn ignored(&mut self, who: Who) -> Result<(), Fault> {
        let id = who();
        self.leaf(id, Type::Any).map(drop)
    }

    pub(in crate::probe) fn identifier(&mut self, who: Who) -> Result<&'static str, Fault> {
        let id = who();
        self.step()?;
        if let Some(name) = self.name.take() {
            return Ok(name);
        }
        let top = self
            .frames
            .last()
            .map(|frame| (frame.id, matches!(frame.seen, Seen::Map(_))));
        let Some((map, true)) = top else {
            self.seen = Seen::opaque(id.value, "it reads a name where a value is expected");
            return Err(Fault::stop("it reads a name where a value is expected"));
        };
        // Keys that are names of fields: a struct with flattened fields.
        let place = self.nodes.len();
        self.nodes
            .push(Node::new(map.key("", &[]), Kind::Flat, Vec::new()));
        self.places.insert(map.key("", &[]), place);
        if let Some(frame) = self.frames.last_mut() {
            frame.seen = Seen::Node(place);
        }
        self.progress += 1;
        Err(Fault::stop("its fields are flattened"))
    }

    // Types without a name.

    /// Opens a frame of a type without a name.
    pub(super) fn unnamed(&mut self, id: Id, seen: Seen) -> Result<(), Fault> {
        self.seen = seen.clone();
        self.step()?;
        let frames = self.frames.iter().rev();
        let mut inner = frames.take_while(|frame| frame.shape == Shape::Unnamed);
        let recursive = !self.minimal && inner.any(|frame| frame.id.visitor == id.visitor);
        if recursive && !self.unnamed.contains_key(id.visitor) {
            let mut slot = Slot::named("");
            slot.rust = id.value;
            let node = Node::new(id.key("", &[]), Kind::Newtype, vec![slot]);
            self.unnamed.insert(id.visitor, self.nodes.len());
            self.nodes.push(node);
            self.progress += 1;
        }
        if let Seen::Node(place) = self.known
            && self.unnamed.contains_key(id.visitor)
        {
            self.known = self.nodes[place].slots[0].seen.clone();
        }
        self.push(Shape::Unnamed, id).seen = seen;
        self.minimal |= recursive;
        Ok(())
    }

    /// Returns `true` if a part that may be left out is read.
    pub(super) fn wants(&self, part: usize) -> bool {
        let Some(frame) = self.frames.last() else {
            return false;
        };
        let mut known = frame.known.clone();
        let distance = match known.part(part) {
            Some(part) => self.plan.distance(part),
            None => 0,
        };
        !self.minimal && (distance != FAR || self.round % 2 == 1)
    }

    pub(in crate::probe) fn option(&mut self, who: Who) -> Result<bool, Fault> {
        let id = who();
        self.unnamed(id, Seen::Option(Box::default()))?;
        let wanted = self.wants(0);
        if wanted {
            self.open_part(0, id.value);
        }
        Ok(wanted)
    }

    pub(in crate::probe) fn seq(&mut self, who: Who) -> Result<(), Fault> {
        let id = who();
        self.unnamed(id, Seen::Seq(Box::default()))?;
        self.give(usize::from(self.wants(0)));
        Ok(())
    }

    pub(in crate::probe) fn map(&mut self, who: Who) -> Result<(), Fault> {
        let id = who();
        if let Some(&place) = self.places.get(&id.key("", &[])) {
            return self.node(place, id);
        }
        self.unnamed(id, Seen::Map(Box::default()))?;
        let wanted = self.wants(0) || self.wants(1);
        self.give(usize::from(wanted));
        Ok(())
    }

    pub(in crate::probe) fn tuple(&mut self, who: Who, len: usize) -> Result<(), Fault> {
        let id = who();
        if len > PARTS && !id.value.starts_with('[') {
            let reason = format!("it has more than {PARTS} elements");
            self.seen = Seen::opaque(id.value, &reason);
            return Err(Fault::limit(reason));
        }
        let seen = if id.value.starts_with('[') {
            Seen::Array(Box::default(), len)
        } else {
            Seen::Tuple(vec![Seen::Nothing; len])
        };
        self.unnamed(id, seen)?;
        self.give(len);
        Ok(())
    }

    /// Gives this many elements. Those of a tuple are distinguished.
    pub(super) fn give(&mut self, len: usize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.leading = len;
        }
    }

    pub(in crate::probe) fn any(&mut self, who: Who) -> Result<Ask, Fault> {
        let id = who();
        if let Some(name) = self.name {
            // A name that is read as whatever there is.
            self.name = None;
            self.step()?;
            self.push(Shape::Unnamed, id);
            return Ok(Ask::Text(name));
        }
        if is_of_serde(id, "::TaggedContentVisitor<") {
            let place = self.place(id, Kind::Tagged, "", &[]);
            self.node(place, id)?;
            return Ok(Ask::Seq);
        }
        if is_of_serde(id, "ContentVisitor<") {
            let reason = "it is an untagged enum, or buffers its content otherwise";
            let seen = Seen::opaque("", reason);
            self.seen = seen.clone();
            self.step()?;
            let round = self.round;
            self.push(Shape::Unnamed, id).seen = seen;
            return Ok(ask(round % 8, round / 8));
        }
        let place = self.place(id, Kind::Any, "", &[]);
        if self.nodes[place].kind == Kind::Flat {
            self.node(place, id)?;
            return Ok(Ask::Map);
        }
        self.node(place, id)?;
        let node = &self.nodes[place];
        let round = self.round + self.refused.get(id.visitor).copied().unwrap_or(0);
        let untried = (0..8).find(|kind| node.tried & (1 << kind) == 0);
        let mut taken = (0..8).filter(|kind| node.taken & (1 << kind) != 0);
        let kinds = node.taken.count_ones().max(1) as usize;
        let kind = untried.or_else(|| taken.nth(round % kinds)).unwrap_or(0);
        if let Some(frame) = self.frames.last_mut() {
            frame.chosen = kind;
        }
        Ok(ask(kind, round / kinds))
    }
}

fn ask(kind: usize, round: usize) -> Ask {
    let number = samples::number(round);
    match kind {
        0 => Ask::Text(samples::text(round)),
        1 => Ask::U64(number.into()),
        2 => Ask::Unit,
        3 => Ask::Bool,
        4 => Ask::I64(-i64::from(number)),
        5 => Ask::F64(f64::from(number)),
        6 => Ask::Seq,
        _ => Ask::Map,
    }
}
