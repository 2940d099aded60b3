//! Descriptions of types that do not describe themselves.

mod emit;
mod fault;
pub(crate) mod key;
mod node;
mod place;
mod plan;
mod samples;
mod tracer;

use std::any::{TypeId, type_name};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use self::fault::Fault;
use self::place::Place;
use self::tracer::Tracer;
use crate::registry::Registry;
use crate::types::Type;

/// Describes a type by observing its `Deserialize`: it is read again and again from made-up values
/// until each variant and each part has been seen. Named types that it uses are added to `registry`
/// and marked as [`Source::Probed`](crate::Source::Probed); those that are there already are not added
/// again.
///
/// What cannot be found out is [`Type::Opaque`], with the reason. That applies to internally tagged
/// and untagged enums, to structs with flattened fields, and to types that read what there is,
/// except for those that take everything, such as `serde_json::Value`, which are [`Type::Any`].
///
/// The order of fields is the one in which the type names them to serde; `visit_seq` of a struct is
/// not called. Documentation, fields that are only written, `skip_serializing_if` and the contents
/// of variants that refuse all made-up values are not seen. An `Option` field is never marked as
/// [`default`](crate::Field::default), because it may be missing without. Of several names of a
/// variant the first one in the alphabet counts as its own.
///
/// It ends after at most 10,000 requests of the type and after 64 values within each other, and has
/// no effects other than those of the `Deserialize` itself. A panic of that is caught, unless the
/// program is compiled with `panic = "abort"`; the panic hook runs, and by default prints it.
pub fn probe<T: DeserializeOwned + 'static>(registry: &mut Registry) -> Type {
    run(registry, TypeId::of::<T>(), type_name::<T>(), read::<T>)
}

fn read<T: DeserializeOwned>(place: Place<'_>) -> Result<(), Fault> {
    match T::deserialize(place) {
        Ok(_) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Requests of all reads of a type together, and those of them that are left for its form in binary
/// formats.
const STEPS: u32 = 10_000;
const RESERVED: u32 = 2_500;

type Read = fn(Place<'_>) -> Result<(), Fault>;

fn run(registry: &mut Registry, id: TypeId, root: &'static str, read: Read) -> Type {
    if let Some(known) = registry.known(id) {
        return known;
    }
    let mut readable = trace(Tracer::new(root, true, STEPS - RESERVED), read);
    let rest = readable.steps + RESERVED;
    let mut compact = None;
    if readable.asked_format() {
        compact = Some(trace(Tracer::new(root, false, rest), read));
    } else if readable.steps == 0 {
        readable.steps = rest;
        readable = trace(readable, read);
    }
    emit::emit(registry, &readable, compact.as_ref())
}

fn trace(mut tracer: Tracer, read: Read) -> Tracer {
    while tracer.begin() {
        let before = tracer.progress();
        let result = catch_unwind(AssertUnwindSafe(|| {
            read(Place {
                tracer: &mut tracer,
            })
        }));
        match result {
            Ok(result) => tracer.end(result.err()),
            Err(_) => tracer.panicked(),
        }
        if tracer.steps == 0 {
            break;
        }
        if tracer.progress() == before && !tracer.abandon("no value was found that it accepts") {
            break;
        }
    }
    tracer
}
