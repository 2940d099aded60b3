//! The conclusions from reads of a type, beyond those about its parts.

use super::{Frame, PARTS, Tracer};
use crate::probe::fault::{Cause, Fault};
use crate::probe::node::{Kind, Seen, Slot};
use crate::probe::plan::{ALL_KINDS, Experiment};
use crate::probe::samples;
use crate::types::Type;

impl Tracer {
    /// Records what a read of a node showed, beyond its slots.
    pub(super) fn conclude(&mut self, place: usize, frame: &Frame, fault: Option<Fault>) {
        let cause = fault.map(|fault| (fault.cause(), fault.is_handled()));
        let node = &mut self.nodes[place];
        let (before, mut learned) = (self.progress, false);
        if node.kind == Kind::Struct
            && frame.next == 0
            && let Some(fault) = fault
            && fault.cause() == Cause::WrongKind
            && !fault.is_handled()
        {
            for slot in &mut node.slots {
                slot.abandoned = true;
                slot.why = format!("it does not read named fields: {}", fault.text());
            }
            node.denies_unknown = Some(false);
            node.defaults_known = true;
            self.progress += 1;
            fault.handle();
            return;
        }
        match (node.kind, frame.experiment) {
            (Kind::Any, _) => return self.conclude_any(place, frame, fault),
            (Kind::Struct | Kind::Enum, Experiment::Unknown) if node.denies_unknown.is_none() => {
                node.denies_unknown = Some(matches!(cause, Some((Cause::UnknownName, _))));
                learned = true;
            }
            (Kind::Struct, Experiment::Twice(slot)) => {
                node.slots[slot].primary = Some(match cause {
                    Some((Cause::Duplicate(name), false)) => name,
                    _ => node.slots[slot].name,
                });
                learned = true;
            }
            (Kind::Struct, Experiment::Required) => match cause {
                None => {
                    for slot in &mut node.slots {
                        slot.required.get_or_insert(false);
                    }
                    node.defaults_known = true;
                    learned = true;
                }
                Some((Cause::Missing(name), false)) => {
                    let slot = node.find(name).map(|slot| &mut node.slots[slot]);
                    match slot {
                        Some(slot) if slot.required.is_none() => slot.required = Some(true),
                        _ => node.defaults_known = true,
                    }
                    learned = true;
                }
                _ => node.defaults_known = self.progress == before && self.steps > 0,
            },
            (Kind::Tagged, _) => match cause {
                Some((Cause::Missing(tag), false)) if node.slots.is_empty() => {
                    node.slots.push(name_only(tag));
                    learned = true;
                }
                Some((Cause::Limit, _)) => {}
                _ if !node.defaults_known => {
                    let names = fault.map(Fault::names).unwrap_or_default();
                    let variants = names.iter().take(PARTS).map(|name| name_only(name));
                    if !node.slots.is_empty() {
                        node.slots.extend(variants);
                    }
                    node.defaults_known = true;
                    learned = true;
                }
                _ => {}
            },
            (Kind::Flat, _) => match cause {
                Some((Cause::Missing(name), false)) if node.find(name).is_none() => {
                    node.slots.push(Slot::named(name));
                    node.defaults_known |= node.slots.len() >= PARTS;
                    learned = true;
                }
                Some((Cause::Stop | Cause::Limit, _) | (_, true)) => {}
                _ if !node.defaults_known => {
                    node.defaults_known = true;
                    learned = true;
                }
                _ => {}
            },
            (Kind::Enum, Experiment::None) => {
                if let Some(slot) = node.slots.get_mut(frame.chosen)
                    && let Some(fault) = fault
                    && !fault.is_handled()
                    && !fault.is_own()
                    && slot.seen == Seen::Nothing
                {
                    slot.why = fault.text();
                    slot.abandoned = true;
                    learned = true;
                }
            }
            (Kind::Struct, Experiment::None) => {
                if let (Some(head), Some((Cause::Duplicate(_), false))) = (frame.suspect, cause) {
                    let slot = frame.order.get(frame.next.wrapping_sub(1));
                    if let Some(slot) = slot.and_then(|&slot| node.slots.get_mut(slot)) {
                        slot.alias_of = Some(head);
                        learned = true;
                    }
                }
            }
            _ => {}
        }
        if learned {
            self.progress += 1;
            if let Some(fault) = fault {
                fault.handle();
            }
        }
    }

    pub(super) fn conclude_any(&mut self, place: usize, frame: &Frame, fault: Option<Fault>) {
        let node = &mut self.nodes[place];
        let bit = 1 << frame.chosen;
        if node.tried & bit != 0 {
            if let Some(fault) = fault
                && !fault.is_own()
                && fault.handle().is_some()
            {
                let refused = self.refused.entry(frame.id.visitor).or_default();
                if *refused < samples::ROUNDS * 2 {
                    *refused += 1;
                    self.progress += 1;
                }
            }
            return;
        }
        let cause = fault.map(|fault| fault.cause());
        node.tried |= bit;
        if cause != Some(Cause::WrongKind) {
            node.taken |= bit;
        }
        if node.tried == ALL_KINDS && node.taken == 1 << 7 {
            node.kind = Kind::Flat;
        }
        self.progress += 1;
        if let Some(fault) = fault {
            fault.handle();
        }
    }
}

/// A slot of which only the name is of interest.
fn name_only(name: &'static str) -> Slot {
    Slot {
        seen: Seen::Is(Type::Unit),
        ..Slot::named(name)
    }
}
