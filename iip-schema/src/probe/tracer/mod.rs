//! The observer: it answers the requests of a `Deserialize`, and records them.

mod contents;
mod learn;
mod named;
mod requests;

use std::cell::Cell;
use std::collections::HashMap;

use super::fault::{Cause, Fault};
use super::key::Key;
use super::node::{Kind, Node, Seen, Slot};
use super::plan::{Experiment, FAR, Plan};
use super::samples;

/// Values within each other.
const DEPTH: usize = 64;
/// Fields, variants or elements of one type.
const PARTS: usize = 2_000;
/// Requests after the last step that are answered with errors. What asks still more ignores errors.
const IGNORED_ERRORS: u32 = 1_000;
/// A name that no field and no variant has.
const UNKNOWN_NAME: &str = "\u{1}unknown";

/// The identity of a visitor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id {
    pub(super) visitor: &'static str,
    pub(super) value: &'static str,
    pub(super) size: usize,
}

/// A function that returns the identity of a visitor: it is smaller to pass.
pub(super) type Who = fn() -> Id;

impl Id {
    fn key(self, name: &'static str, names: &'static [&'static str]) -> Key {
        Key {
            visitor: self.visitor,
            value: self.value,
            size: self.size,
            name,
            names,
        }
    }
}

/// A value for a visitor that takes what there is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Unit,
    Bool,
    U64(u64),
    I64(i64),
    F64(f64),
    Text(&'static str),
    Seq,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// An option, a sequence, a map, a tuple.
    Unnamed,
    Node(usize),
}

/// A value that is being read.
#[derive(Debug)]
struct Frame {
    shape: Shape,
    id: Id,
    /// The form of a type without a name: as known before this read, and as seen by it.
    known: Seen,
    seen: Seen,
    /// The slots or elements that are given, and the place in them.
    order: Vec<usize>,
    next: usize,
    /// The end of the slots in `order` that lead to something unknown.
    leading: usize,
    experiment: Experiment,
    /// The variant.
    chosen: usize,
    /// The slot whose name the last name seems to be an alias of.
    suspect: Option<usize>,
    part: Option<Part>,
    was_minimal: bool,
    /// The variant in the tag of an adjacently tagged enum.
    variant: Option<usize>,
    /// A frame of an enum around the content of an adjacently tagged one.
    is_content: bool,
}

/// The state outside of a part that is being read.
#[derive(Debug, Clone, Copy)]
struct Part {
    index: usize,
    round: usize,
}

#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) nodes: Vec<Node>,
    places: HashMap<Key, usize>,
    contents: HashMap<(usize, usize), usize>,
    /// Types without a name that contain themselves, and structs whose `Deserialize` passes no
    /// names of fields.
    unnamed: HashMap<&'static str, usize>,
    /// The number of values that each visitor of leaves has refused.
    refused: HashMap<&'static str, usize>,
    readable: bool,
    /// A type has asked whether the format is human-readable.
    asked_format: Cell<bool>,
    pub(super) steps: u32,
    ignored_errors: u32,
    progress: u64,
    frames: Vec<Frame>,
    plan: Plan,
    known: Seen,
    seen: Seen,
    /// The name that is read next.
    name: Option<&'static str>,
    name_type: &'static str,
    round: usize,
    /// The smallest value is given, because nothing new is to be seen.
    minimal: bool,
    /// The last slot that was read because it leads to something unknown.
    pursued: Option<(usize, usize)>,
}

impl Tracer {
    pub(super) fn new(root: &'static str, readable: bool, steps: u32) -> Self {
        let key = Key {
            visitor: "",
            value: root,
            size: 0,
            name: "",
            names: &[],
        };
        let mut slot = Slot::named("");
        slot.rust = root;
        Self {
            nodes: vec![Node::new(key, Kind::Newtype, vec![slot])],
            places: HashMap::new(),
            contents: HashMap::new(),
            unnamed: HashMap::new(),
            refused: HashMap::new(),
            readable,
            asked_format: Cell::new(false),
            steps,
            ignored_errors: 0,
            progress: 0,
            frames: Vec::new(),
            plan: Plan::default(),
            known: Seen::Nothing,
            seen: Seen::Nothing,
            name: None,
            name_type: "",
            round: 0,
            minimal: false,
            pursued: None,
        }
    }

    pub(super) fn root(&self) -> &Slot {
        &self.nodes[0].slots[0]
    }

    /// Begins a read. Returns `false` if no further one would show anything.
    pub(super) fn begin(&mut self) -> bool {
        for node in &mut self.nodes {
            node.open = 0;
            node.slots.iter_mut().for_each(|slot| slot.busy = 0);
        }
        self.frames.clear();
        self.plan = Plan::new(&self.nodes, self.readable);
        self.ignored_errors = 0;
        (self.round, self.minimal, self.name, self.pursued) = (0, false, None, None);
        if self.steps == 0 || self.plan.distance(&Seen::Node(0)) == FAR {
            return false;
        }
        let id = Id {
            visitor: "",
            value: self.nodes[0].key.value,
            size: 0,
        };
        self.push(Shape::Node(0), id);
        self.open_part(0, "");
        true
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// Ends a read that returned.
    pub(super) fn end(&mut self, fault: Option<Fault>) {
        match fault {
            None => self.close(None),
            Some(fault) => self.close(Some(fault)),
        }
    }

    /// Gives up what the last read looked for. Returns `false` if it looked for nothing.
    pub(super) fn abandon(&mut self, why: &str) -> bool {
        let Some((node, slot)) = self.pursued else {
            return false;
        };
        let slot = &mut self.nodes[node].slots[slot];
        slot.abandoned = true;
        if slot.why.is_empty() {
            why.clone_into(&mut slot.why);
        }
        true
    }

    /// Ends a read that panicked, or that was ended by unwinding.
    pub(super) fn panicked(&mut self) {
        let fault = Fault::limit(match self.steps {
            0 => too_long(),
            _ => "its `Deserialize` panicked".to_owned(),
        });
        let mut frames = self.frames.iter().rev();
        let innermost = frames.find_map(|frame| match (frame.shape, frame.part) {
            (Shape::Node(node), Some(part)) => Some((node, part.index)),
            _ => None,
        });
        while !self.frames.is_empty() {
            self.close(Some(fault));
        }
        if let Some((node, slot)) = innermost
            && let Some(slot) = self.nodes[node].slots.get_mut(slot)
        {
            slot.abandoned = true;
            slot.why = fault.text();
        }
    }

    pub(super) fn is_readable(&self) -> bool {
        self.asked_format.set(true);
        self.readable
    }

    pub(super) fn asked_format(&self) -> bool {
        self.asked_format.get()
    }

    fn step(&mut self) -> Result<(), Fault> {
        if self.steps == 0 {
            self.ignored_errors += 1;
            if self.ignored_errors > IGNORED_ERRORS && cfg!(panic = "unwind") {
                // It ignores errors, so only unwinding ends it. The panic hook is not run.
                std::panic::resume_unwind(Box::new("no end of an observed `Deserialize`"));
            }
            return Err(Fault::limit(too_long()));
        }
        self.steps -= 1;
        if self.frames.len() > DEPTH {
            let text = format!("it is nested more than {DEPTH} levels deep");
            return Err(Fault::limit(text));
        }
        Ok(())
    }

    fn push(&mut self, shape: Shape, id: Id) -> &mut Frame {
        let was_minimal = self.minimal;
        if let Shape::Node(node) = shape {
            let node = &mut self.nodes[node];
            node.open += 1;
            self.minimal |= node.open > 1;
        }
        let frame = Frame {
            shape,
            id,
            known: std::mem::take(&mut self.known),
            seen: Seen::Nothing,
            order: Vec::new(),
            next: 0,
            leading: 0,
            experiment: Experiment::None,
            chosen: 0,
            suspect: None,
            part: None,
            was_minimal,
            variant: None,
            is_content: false,
        };
        let place = self.frames.len();
        self.frames.push(frame);
        &mut self.frames[place]
    }

    fn open_part(&mut self, index: usize, rust: &'static str) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let round = self.round;
        frame.part = Some(Part { index, round });
        self.known = match frame.shape {
            Shape::Node(place) => {
                let Some(slot) = self.nodes[place].slots.get_mut(index) else {
                    return;
                };
                if !rust.is_empty() {
                    slot.rust = rust;
                }
                slot.busy += 1;
                self.round += slot.round;
                if !self.minimal && self.plan.distance(&slot.seen) != FAR {
                    self.pursued = Some((place, index));
                }
                slot.seen.clone()
            }
            Shape::Unnamed => frame.known.part(index).cloned().unwrap_or_default(),
        };
        self.seen = Seen::Nothing;
    }

    fn close_part(&mut self, fault: Option<Fault>) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let Some(part) = frame.part.take() else {
            return;
        };
        self.round = part.round;
        let seen = std::mem::take(&mut self.seen);
        let Shape::Node(place) = frame.shape else {
            if let Some(part) = frame.seen.part(part.index) {
                part.merge(seen);
            }
            return;
        };
        let Some(slot) = self.nodes[place].slots.get_mut(part.index) else {
            return;
        };
        slot.busy = slot.busy.saturating_sub(1);
        let before = slot.seen.clone();
        slot.seen.merge(seen);
        if slot.seen != before {
            self.progress += 1;
        }
        if fault.is_none() && slot.seen == Seen::Nothing {
            "it reads nothing".clone_into(&mut slot.why);
        }
        if let Some(fault) = fault
            && !matches!(fault.cause(), Cause::Stop if slot.seen != Seen::Nothing)
        {
            slot.why = fault.text();
            if !fault.is_own() && fault.handle().is_some() && slot.round < samples::ROUNDS {
                slot.round += 1;
                self.progress += 1;
            }
        }
    }

    /// Ends the innermost value.
    pub(super) fn close(&mut self, fault: Option<Fault>) {
        self.settle(fault);
        self.close_frame(fault);
    }

    fn close_frame(&mut self, fault: Option<Fault>) {
        let Some(mut frame) = self.frames.pop() else {
            return;
        };
        self.minimal = frame.was_minimal;
        self.name = None;
        match frame.shape {
            Shape::Unnamed => {
                self.seen = std::mem::take(&mut frame.seen);
                if let Some(&place) = self.unnamed.get(frame.id.visitor) {
                    let slot = &mut self.nodes[place].slots[0];
                    let before = slot.seen.clone();
                    slot.seen.merge(std::mem::take(&mut self.seen));
                    self.progress += u64::from(slot.seen != before);
                    self.seen = Seen::Node(place);
                }
            }
            Shape::Node(place) => {
                self.nodes[place].open = self.nodes[place].open.saturating_sub(1);
                self.conclude(place, &frame, fault);
                self.seen = Seen::Node(place);
            }
        }
    }
}

/// Returns `true` if a visitor is the one with this name in the code for derived implementations.
fn is_of_serde(id: Id, name: &str) -> bool {
    id.visitor.starts_with("serde") && id.visitor.contains(name)
}

fn is_adjacent_tag(id: Id) -> bool {
    is_of_serde(id, "::AdjacentlyTaggedEnumVariantVisitor<")
}

pub(super) fn too_long() -> String {
    format!(
        "it was not understood within {} requests",
        crate::probe::STEPS
    )
}
