//! The contents of the innermost value that is being read.

use std::fmt::Write as _;

use super::{Id, Shape, Tracer, UNKNOWN_NAME, is_adjacent_tag};
use crate::probe::fault::Fault;
use crate::probe::key::Key;
use crate::probe::node::{Content, Kind, Node, Seen, Slot};
use crate::probe::place::Mark;
use crate::probe::plan::{Experiment, FAR};

impl Tracer {
    pub(in crate::probe) fn size_hint(&self) -> Option<usize> {
        let frame = self.frames.last()?;
        let len = match frame.shape {
            Shape::Node(node) => self.nodes[node].slots.len(),
            Shape::Unnamed => frame.leading,
        };
        Some(len.saturating_sub(frame.next))
    }

    pub(in crate::probe) fn next_element(
        &mut self,
        rust: fn() -> &'static str,
    ) -> Result<bool, Fault> {
        let rust = rust();
        self.settle(None);
        self.step()?;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(false);
        };
        let len = match frame.shape {
            Shape::Node(node) if self.nodes[node].kind == Kind::Any => 0,
            Shape::Node(node) => self.nodes[node].slots.len(),
            Shape::Unnamed => frame.leading,
        };
        if let Shape::Node(node) = frame.shape
            && self.nodes[node].kind == Kind::Tagged
        {
            // The first element is the tag.
            let slots = &self.nodes[node].slots;
            let given = len > 0 && frame.next == 0;
            frame.next += 1;
            self.name = given.then(|| match slots.len() - 1 {
                0 => UNKNOWN_NAME,
                variants => slots[1 + self.round % variants].name,
            });
            return Ok(given);
        }
        if frame.next >= len {
            return Ok(false);
        }
        frame.next += 1;
        let index = frame.next - 1;
        self.open_part(index, rust);
        Ok(true)
    }

    pub(in crate::probe) fn next_key(&mut self, rust: fn() -> &'static str) -> Result<bool, Fault> {
        let rust = rust();
        self.settle(None);
        self.step()?;
        self.name_type = rust;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(false);
        };
        let Shape::Node(place) = frame.shape else {
            if frame.next >= frame.leading {
                return Ok(false);
            }
            frame.next += 1;
            self.open_part(0, rust);
            return Ok(true);
        };
        if self.nodes[place].kind == Kind::Any || frame.next >= frame.order.len() {
            return Ok(false);
        }
        if frame.leading > 0 && frame.next >= frame.leading && frame.leading < frame.order.len() {
            return Err(Fault::stop("nothing more is to be seen here"));
        }
        let slot = frame.order[frame.next];
        frame.next += 1;
        frame.chosen = slot;
        let slot = self.nodes[place].slots.get(slot);
        self.name = Some(slot.map_or(UNKNOWN_NAME, |slot| slot.name));
        Ok(true)
    }

    pub(in crate::probe) fn name_read(&mut self, mark: Mark<'_>) {
        self.name = None;
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let Shape::Node(place) = frame.shape else {
            self.close_part(None);
            return;
        };
        let node = &mut self.nodes[place];
        let chosen = frame.chosen;
        if !self.name_type.contains("Field") || chosen >= node.slots.len() {
            return;
        }
        let mut text = String::new();
        let _ = write!(text, "{mark:?}");
        let same = |slot: &Slot| slot.mark.as_ref() == Some(&text) && slot.alias_of.is_none();
        frame.suspect = node
            .slots
            .iter()
            .position(same)
            .filter(|&other| other != chosen);
        node.slots[chosen].mark = Some(text);
        if node.kind == Kind::Enum && frame.suspect.is_some() {
            node.slots[chosen].alias_of = frame.suspect;
            self.progress += 1;
        }
    }

    pub(in crate::probe) fn name_failed(&mut self, fault: Fault) {
        self.name = None;
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let Shape::Node(place) = frame.shape else {
            self.close_part(Some(fault));
            return;
        };
        if frame.experiment == Experiment::None
            && let Some(slot) = self.nodes[place].slots.get_mut(frame.chosen)
        {
            slot.why = fault.text();
            slot.abandoned = true;
            self.progress += 1;
            fault.handle();
        }
    }

    pub(in crate::probe) fn next_value(&mut self, rust: fn() -> &'static str) -> Result<(), Fault> {
        let rust = rust();
        self.settle(None);
        self.step()?;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        frame.suspect = None;
        let index = match frame.shape {
            Shape::Unnamed => 1,
            Shape::Node(_) if frame.chosen == usize::MAX => {
                return Err(Fault::stop("a name that is not known was read"));
            }
            Shape::Node(_) => frame.chosen,
        };
        match self.adjacent_content() {
            Some((enumeration, variant)) => {
                let id = Id {
                    visitor: "",
                    value: "",
                    size: 0,
                };
                self.push(Shape::Node(enumeration), id).is_content = true;
                self.open_part(variant, rust);
            }
            None => self.open_part(index, rust),
        }
        Ok(())
    }

    /// The enum and the variant whose content is read, if the innermost frame is an adjacently
    /// tagged enum.
    pub(super) fn adjacent_content(&self) -> Option<(usize, usize)> {
        let frame = self.frames.last()?;
        let Shape::Node(place) = frame.shape else {
            return None;
        };
        match (self.nodes[place].kind, frame.chosen) {
            (Kind::Adjacent(enumeration), 1) => Some((enumeration, frame.variant?)),
            _ => None,
        }
    }

    /// Ends the part of the innermost value that was read before, if there is one.
    pub(super) fn settle(&mut self, fault: Option<Fault>) {
        let Some(frame) = self.frames.last() else {
            return;
        };
        match (frame.is_content, frame.shape, frame.part) {
            (true, Shape::Node(place), Some(part)) => {
                if fault.is_none() && self.seen == Seen::Nothing {
                    self.seen = self.content((place, part.index), Content::Unit, &[]);
                }
                self.close_part(fault);
                self.close_frame(fault);
            }
            _ => self.close_part(fault),
        }
    }

    // Variants.

    pub(in crate::probe) fn variant_name(
        &mut self,
        rust: fn() -> &'static str,
    ) -> Result<(), Fault> {
        let rust = rust();
        self.settle(None);
        self.step()?;
        self.name_type = rust;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        let Shape::Node(place) = frame.shape else {
            return Ok(());
        };
        let node = &self.nodes[place];
        let plan = &self.plan;
        let slots = || {
            let slots = node.slots.iter().enumerate();
            slots.filter(|(_, slot)| !slot.abandoned && slot.alias_of.is_none())
        };
        let smallest = slots().min_by_key(|(_, slot)| plan.height(&slot.seen));
        let finite = smallest.filter(|(_, slot)| plan.height(&slot.seen) != FAR);
        let nearest = slots().min_by_key(|(_, slot)| plan.distance(&slot.seen));
        let leading = nearest.filter(|(_, slot)| plan.distance(&slot.seen) != FAR);
        let new = slots().find(|(_, slot)| slot.busy == 0 && slot.has_gap());
        let chosen = if self.minimal {
            finite.or(new)
        } else if new.is_none() && self.readable && node.denies_unknown.is_none() {
            frame.experiment = Experiment::Unknown;
            frame.chosen = usize::MAX;
            self.name = Some(UNKNOWN_NAME);
            return Ok(());
        } else {
            new.or(leading).or(smallest)
        };
        let Some((chosen, slot)) = chosen else {
            return Err(Fault::limit("no variant of it ends"));
        };
        frame.chosen = chosen;
        self.name = Some(slot.name);
        Ok(())
    }

    pub(in crate::probe) fn variant(
        &mut self,
        content: Content,
        names: &'static [&'static str],
    ) -> Result<(), Fault> {
        let Some(frame) = self.frames.last() else {
            return Ok(());
        };
        let (id, chosen) = (frame.id, frame.chosen);
        let Shape::Node(place) = frame.shape else {
            return Ok(());
        };
        if chosen >= self.nodes[place].slots.len() {
            return Err(Fault::stop("a name that is not known was read"));
        }
        if self.nodes[place].slots[chosen].alias_of.is_some() {
            return Err(Fault::stop("a variant has a further name"));
        }
        if is_adjacent_tag(id) {
            let outer = self.frames.len().wrapping_sub(2);
            if let Some(outer) = self.frames.get_mut(outer) {
                outer.variant = Some(chosen);
            }
            self.push(Shape::Unnamed, id);
            return Ok(());
        }
        let len = match content {
            Content::Tuple(len) => len,
            _ => names.len(),
        };
        self.check_parts(id, len)?;
        self.open_part(chosen, "");
        let seen = self.content((place, chosen), content, names);
        let Seen::Node(inner) = seen else {
            self.seen = seen;
            return Err(Fault::stop("the form of a variant depends on its value"));
        };
        self.node(inner, id)?;
        if content == Content::Newtype {
            self.open_part(0, "");
        }
        Ok(())
    }

    /// The node of the content of a variant.
    pub(super) fn content(
        &mut self,
        place: (usize, usize),
        content: Content,
        names: &'static [&'static str],
    ) -> Seen {
        let (kind, len) = match content {
            Content::Unit => (Kind::Unit, 0),
            Content::Newtype => (Kind::Newtype, 1),
            Content::Tuple(len) => (Kind::Tuple, len),
            Content::Struct => (Kind::Struct, 0),
        };
        if let Some(&inner) = self.contents.get(&place) {
            if self.nodes[inner].kind == kind {
                return Seen::Node(inner);
            }
            return Seen::opaque("", "its form depends on its value");
        }
        let slots = names.iter().map(|name| Slot::named(name)).collect();
        let key = Key {
            names,
            ..self.nodes[place.0].key
        };
        self.contents.insert(place, self.nodes.len());
        let mut node = Node::new(key, kind, slots);
        node.is_content = true;
        self.nodes.push(node);
        self.progress += 1;
        let inner = self.nodes.len() - 1;
        self.grow(inner, len);
        Seen::Node(inner)
    }
}
