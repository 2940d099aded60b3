//! Comparison of two descriptions of one type, for tests.

use std::any::type_name;
use std::collections::HashSet;

use serde::de::DeserializeOwned;

use crate::probe::probe;
use crate::registry::Registry;
use crate::schema::Schema;
use crate::types::{Enum, Field, Shape, Type, Types, Variant, VariantShape};

/// Compares the forms of two types, as far as both are known: a part that is opaque or any
/// value agrees with everything, a newtype is the type that it contains, and a type of two forms
/// agrees with one form if both do.
///
/// Names of types, documentation, secrets, reasons of opaque types, sources of definitions and
/// `may_be_skipped` are not compared, and neither are aliases of fields. Of a variant, all names
/// together are compared: observation does not show which is its own. An `Option` may be missing,
/// with `default` or without.
///
/// # Errors
///
/// Returns the place of the first difference, with the forms of both sides.
pub fn same_types(a: &Type, a_types: &Types, b: &Type, b_types: &Types) -> Result<(), String> {
    let mut comparison = Comparison {
        a: a_types,
        b: b_types,
        met: HashSet::new(),
    };
    comparison.types(a, b, "value")
}

/// Compares the description that a type derives with what is observed of it, see [`same_types`].
///
/// # Errors
///
/// The first difference, or why the whole type cannot be observed although nothing that it says
/// about itself explains that.
pub fn check_derived<T: Schema + DeserializeOwned>() -> Result<(), String> {
    let (ty, types) = described(T::describe);
    let (observed, observed_types) = described(probe::<T>);
    let name = type_name::<T>();
    same_types(&ty, &types, &observed, &observed_types).map_err(|difference| {
        format!("{name}: {difference}; derived {types:?}, observed {observed_types:?}")
    })?;
    match observed {
        Type::Opaque { reason, .. } if T::NAMED_ONLY.is_none() => {
            Err(format!("{name} cannot be observed: {reason}"))
        }
        _ => Ok(()),
    }
}

fn described(describe: impl FnOnce(&mut Registry) -> Type) -> (Type, Types) {
    let mut registry = Registry::new();
    let mut ty = describe(&mut registry);
    let (types, names) = registry.finish();
    names.apply(&mut ty);
    (ty, types)
}

struct Comparison<'a> {
    a: &'a Types,
    b: &'a Types,
    /// The pairs of names that are the same if nothing else differs.
    met: HashSet<(&'a str, &'a str)>,
}

type Verdict = Result<(), String>;

impl<'a> Comparison<'a> {
    fn types(&mut self, a: &'a Type, b: &'a Type, at: &str) -> Verdict {
        match (a, b) {
            (Type::Named(a), Type::Named(b)) => return self.named(a, b, at),
            (_, Type::Opaque { .. } | Type::Any) | (Type::Opaque { .. } | Type::Any, _) => {
                return Ok(());
            }
            (Type::Named(name), other) => {
                return match self.a.get(name).map(|definition| &definition.shape) {
                    Some(Shape::Newtype(inner)) => self.types(inner, other, at),
                    _ => differ(at, a, b),
                };
            }
            (other, Type::Named(name)) => {
                return match self.b.get(name).map(|definition| &definition.shape) {
                    Some(Shape::Newtype(inner)) => self.types(other, inner, at),
                    _ => differ(at, a, b),
                };
            }
            (Type::ByFormat { .. }, Type::ByFormat { .. }) => {}
            (Type::ByFormat { readable, compact }, other) => {
                self.types(readable, other, at)?;
                return self.types(compact, other, at);
            }
            (other, Type::ByFormat { readable, compact }) => {
                self.types(other, readable, at)?;
                return self.types(other, compact, at);
            }
            (Type::Array(_, m), Type::Array(_, n)) if m != n => return differ(at, a, b),
            (Type::Tuple(m), Type::Tuple(n)) if m.len() != n.len() => return differ(at, a, b),
            _ if std::mem::discriminant(a) != std::mem::discriminant(b) => {
                return differ(at, a, b);
            }
            _ => {}
        }
        let pairs = a.parts().zip(b.parts()).enumerate();
        for (place, (a, b)) in pairs {
            self.types(a, b, &format!("{at}.{place}"))?;
        }
        Ok(())
    }

    fn named(&mut self, a: &'a str, b: &'a str, at: &str) -> Verdict {
        if !self.met.insert((a, b)) {
            return Ok(());
        }
        let (Some(a), Some(b)) = (self.a.get(a), self.b.get(b)) else {
            return differ(at, &a, &b);
        };
        match (&a.shape, &b.shape) {
            (Shape::Unit, Shape::Unit) => Ok(()),
            (Shape::Newtype(a), Shape::Newtype(b)) => self.types(a, b, &format!("{at}.0")),
            (Shape::Tuple(a), Shape::Tuple(b)) => self.all(a, b, at),
            (
                Shape::Struct {
                    fields: a,
                    deny_unknown_fields: a_denies,
                },
                Shape::Struct {
                    fields: b,
                    deny_unknown_fields: b_denies,
                },
            ) => {
                equal(at, "deny_unknown_fields", a_denies, b_denies)?;
                self.fields(a, b, at)
            }
            (Shape::Enum(a), Shape::Enum(b)) => self.enums(a, b, at),
            (a, b) => differ(at, a, b),
        }
    }

    fn all(&mut self, a: &'a [Type], b: &'a [Type], at: &str) -> Verdict {
        equal(at, "number of parts", &a.len(), &b.len())?;
        for (place, (a, b)) in a.iter().zip(b).enumerate() {
            self.types(a, b, &format!("{at}.{place}"))?;
        }
        Ok(())
    }

    fn fields(&mut self, a: &'a [Field], b: &'a [Field], at: &str) -> Verdict {
        let names = |fields: &'a [Field]| -> Vec<&str> {
            fields.iter().map(|field| &*field.name).collect()
        };
        equal(at, "fields", &names(a), &names(b))?;
        for (a, b) in a.iter().zip(b) {
            let at = format!("{at}.{}", a.name);
            self.types(&a.ty, &b.ty, &at)?;
            equal(&at, "optional", &a.is_optional(), &b.is_optional())?;
            equal(&at, "flatten", &a.flatten, &b.flatten)?;
            equal(&at, "read_only", &a.read_only, &b.read_only)?;
            equal(&at, "write_only", &a.write_only, &b.write_only)?;
        }
        Ok(())
    }

    fn enums(&mut self, a: &'a Enum, b: &'a Enum, at: &str) -> Verdict {
        equal(at, "tagging", &a.tagging, &b.tagging)?;
        equal(
            at,
            "number of variants",
            &a.variants.len(),
            &b.variants.len(),
        )?;
        for (a, b) in a.variants.iter().zip(&b.variants) {
            let names = |variant: &'a Variant| {
                let mut names: Vec<&str> = variant.aliases.iter().map(|name| &**name).collect();
                names.push(&variant.name);
                names.sort_unstable();
                names
            };
            equal(at, "names of a variant", &names(a), &names(b))?;
            let at = format!("{at}.{}", a.name);
            equal(&at, "index", &a.index, &b.index)?;
            equal(&at, "other", &a.other, &b.other)?;
            equal(&at, "untagged", &a.untagged, &b.untagged)?;
            match (&a.shape, &b.shape) {
                (VariantShape::Unit, VariantShape::Unit)
                | (_, VariantShape::Newtype(Type::Opaque { .. })) => Ok(()),
                (VariantShape::Newtype(a), VariantShape::Newtype(b)) => {
                    self.types(a, b, &format!("{at}.0"))
                }
                (VariantShape::Tuple(a), VariantShape::Tuple(b)) => self.all(a, b, &at),
                (VariantShape::Struct(a), VariantShape::Struct(b)) => self.fields(a, b, &at),
                (a, b) => differ(&at, a, b),
            }?;
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(at: &str, what: &str, a: &T, b: &T) -> Verdict {
    if a == b {
        return Ok(());
    }
    Err(format!(
        "{at}: {what}: {a:?} on one side, {b:?} on the other"
    ))
}

fn differ(at: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug) -> Verdict {
    Err(format!("{at}: {a:?} on one side, {b:?} on the other"))
}
