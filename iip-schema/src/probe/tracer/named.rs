//! Types with a name.

use super::{Id, PARTS, Shape, Tracer, Who, is_adjacent_tag};
use crate::probe::fault::Fault;
use crate::probe::node::{Kind, Node, Seen, Slot};
use crate::probe::plan::{Experiment, FAR, experiment};

impl Tracer {
    pub(super) fn place(
        &mut self,
        id: Id,
        kind: Kind,
        name: &'static str,
        names: &'static [&'static str],
    ) -> usize {
        let key = id.key(name, names);
        if let Some(&place) = self.places.get(&key) {
            return place;
        }
        let slots = match kind {
            Kind::Newtype => vec![Slot::named("")],
            _ => names.iter().map(|name| Slot::named(name)).collect(),
        };
        self.places.insert(key, self.nodes.len());
        self.nodes.push(Node::new(key, kind, slots));
        self.progress += 1;
        self.nodes.len() - 1
    }

    pub(super) fn node(&mut self, place: usize, id: Id) -> Result<(), Fault> {
        self.seen = Seen::Node(place);
        self.step()?;
        self.push(Shape::Node(place), id);
        self.arrange(place);
        Ok(())
    }

    /// Decides which slots are given, and in which order.
    pub(super) fn arrange(&mut self, place: usize) {
        let node = &self.nodes[place];
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let all = (0..node.slots.len()).filter(|&slot| node.slots[slot].alias_of.is_none());
        frame.order = all.collect();
        match node.kind {
            Kind::Struct => {
                let tried = match experiment(node) {
                    _ if !self.readable || node.has_gap() || node.open > 1 || self.minimal => {
                        Experiment::None
                    }
                    tried => tried,
                };
                frame.experiment = tried;
                match tried {
                    Experiment::None => {}
                    Experiment::Unknown => frame.order = vec![usize::MAX],
                    Experiment::Twice(slot) => frame.order = vec![slot, slot],
                    Experiment::Required => {
                        frame
                            .order
                            .retain(|&slot| node.slots[slot].required == Some(true));
                    }
                }
                if tried != Experiment::None {
                    self.minimal = true;
                    return;
                }
            }
            Kind::Flat => {}
            _ => return,
        }
        if self.minimal {
            return;
        }
        let plan = &self.plan;
        let far = |slot: &usize| match &node.slots[*slot] {
            slot if slot.abandoned => (1, FAR),
            slot => match plan.distance(&slot.seen) {
                FAR => (0, FAR),
                near => (0, near),
            },
        };
        frame.order.sort_by_key(far);
        frame.leading = frame.order.iter().filter(|slot| far(slot).1 != FAR).count();
    }

    pub(in crate::probe) fn unit_struct(
        &mut self,
        who: Who,
        name: &'static str,
    ) -> Result<(), Fault> {
        self.begin_named(who, Kind::Unit, name, &[], 0)
    }

    pub(in crate::probe) fn newtype_struct(
        &mut self,
        who: Who,
        name: &'static str,
    ) -> Result<(), Fault> {
        self.begin_named(who, Kind::Newtype, name, &[], 1)?;
        self.open_part(0, "");
        Ok(())
    }

    pub(in crate::probe) fn tuple_struct(
        &mut self,
        who: Who,
        name: &'static str,
        len: usize,
    ) -> Result<(), Fault> {
        self.begin_named(who, Kind::Tuple, name, &[], len)
    }

    pub(in crate::probe) fn structure(
        &mut self,
        who: Who,
        name: &'static str,
        names: &'static [&'static str],
    ) -> Result<(), Fault> {
        self.begin_named(who, Kind::Struct, name, names, names.len())
    }

    pub(in crate::probe) fn enumeration(
        &mut self,
        who: Who,
        name: &'static str,
        names: &'static [&'static str],
    ) -> Result<(), Fault> {
        self.begin_named(who, Kind::Enum, name, names, names.len())
    }

    /// Begins to read a type with a name, which has `len` fields or variants.
    fn begin_named(
        &mut self,
        who: Who,
        kind: Kind,
        name: &'static str,
        names: &'static [&'static str],
        len: usize,
    ) -> Result<(), Fault> {
        let id = who();
        self.check_parts(id, len)?;
        let place = self.place(id, kind, name, names);
        self.grow(place, len);
        // serde reads the tag of an adjacently tagged enum as an enum, in a struct of tag and content.
        if is_adjacent_tag(id)
            && let Some(frame) = self.frames.last()
            && let Shape::Node(outer) = frame.shape
            && self.nodes[outer].slots.len() == 2
        {
            self.nodes[outer].kind = Kind::Adjacent(place);
            self.nodes[outer].slots[1].abandoned = true;
        }
        self.node(place, id)
    }

    pub(super) fn check_parts(&mut self, id: Id, len: usize) -> Result<(), Fault> {
        if len <= PARTS {
            return Ok(());
        }
        let reason = format!("it has more than {PARTS} fields or variants");
        self.seen = Seen::opaque(id.value, &reason);
        Err(Fault::limit(reason))
    }

    pub(super) fn grow(&mut self, place: usize, len: usize) {
        let slots = &mut self.nodes[place].slots;
        if slots.len() < len {
            slots.resize_with(len, Slot::default);
        }
    }
}
