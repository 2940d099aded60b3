//! The comparison of enums.

use std::collections::{HashMap, HashSet};

use super::fields::places;
use super::forms::{Form, Struct, resolve};
use super::judge::{Judge, Step};
use super::report::{Rule, Verdict};
use crate::text::Name;
use crate::types::{Enum, Field, Tagging, Type, Types, Variant, VariantShape};

impl<'a> Judge<'a, '_> {
    pub(super) fn enums(
        &mut self,
        (from, written): (&'a str, &'a Enum),
        (to, read): (&'a str, &'a Enum),
    ) {
        if !self.charge(size(written) + size(read)) {
            return;
        }
        if self.encoding.is_positional() {
            for (name, of) in [(from, written), (to, read)] {
                if of.tagging != Tagging::External || of.variants.iter().any(|one| one.untagged) {
                    let name = Name(name);
                    return self.needs_names(&format!("the enum `{name}`, which has no numbers,"));
                }
            }
            return self.variants_by_place((from, written), (to, read));
        }
        if written.tagging != read.tagging {
            let name = Name(to);
            let (from, to) = (in_words(&written.tagging), in_words(&read.tagging));
            let (writer, reader) = (self.writer(), self.reader());
            let text = format!("`{name}` is {from} in the {writer} and {to} in the {reader}");
            let rule = Rule::EnumRepresentationChanged;
            return self.differ(rule, Verdict::Incompatible, &from, &to, &text);
        }
        match written.tagging {
            Tagging::Untagged => self.untagged(
                from,
                written.variants.iter().collect(),
                read.variants.iter().collect(),
            ),
            _ => self.variants_by_name((from, written), (to, read)),
        }
    }

    fn variants_by_place(
        &mut self,
        (name, written): (&'a str, &'a Enum),
        (_, read): (&'a str, &'a Enum),
    ) {
        let at = by_index(read);
        let reads = names_of(read);
        let writes = places(written.variants.iter().map(|variant| &*variant.name));
        let fallback = Fallback::of(read);
        let mut known = 0;
        for from in &written.variants {
            let moved = reads
                .get(&*from.name)
                .and_then(|place| read.variants.get(*place));
            let there = at
                .get(&from.index)
                .and_then(|place| read.variants.get(*place));
            let Some(to) = there else {
                match moved {
                    Some(to) => self.variant_moved(name, from, to),
                    None => self.variant_unknown(name, from, &written.tagging, fallback),
                }
                continue;
            };
            known += 1;
            if !names(to).any(|name| name == from.name) {
                if let Some(to) = moved {
                    self.variant_moved(name, from, to);
                    continue;
                }
                let elsewhere = names(to).find_map(|name| writes.get(name)).copied();
                if let Some(other) = elsewhere.and_then(|place| written.variants.get(place)) {
                    self.variant_moved(name, other, to);
                    continue;
                }
            }
            if from.name != to.name {
                self.variant_renamed(name, from, to, Verdict::Compatible);
            }
            self.contents((name, &written.tagging), from, to);
        }
        let numbers = by_index(written);
        let is_added = |to: &&Variant| !numbers.contains_key(&to.index);
        self.variants_added(name, &writes, read.variants.iter().filter(is_added));
        self.no_variant_known(name, written, known);
    }

    fn variants_by_name(
        &mut self,
        (name, written): (&'a str, &'a Enum),
        (_, read): (&'a str, &'a Enum),
    ) {
        let at = by_index(read);
        let reads = names_of(read);
        let writes = places(written.variants.iter().map(|variant| &*variant.name));
        let fallback = Fallback::of(read);
        let mut known = 0;
        let mut matched = HashSet::new();
        for from in written.variants.iter().filter(|from| !from.untagged) {
            let found = reads.get(&*from.name).copied();
            let Some((place, to)) = found.and_then(|at| Some((at, read.variants.get(at)?))) else {
                let there = at.get(&from.index).copied();
                let there = there.and_then(|place| Some((place, read.variants.get(place)?)));
                let renamed = there.filter(|(_, to)| {
                    fallback.other.is_none()
                        && from.shape == to.shape
                        && names(to).all(|name| !writes.contains_key(name))
                });
                match renamed {
                    Some((place, to)) => {
                        matched.insert(place);
                        self.variant_renamed(name, from, to, Verdict::Warn);
                    }
                    _ => self.variant_unknown(name, from, &written.tagging, fallback),
                }
                continue;
            };
            known += 1;
            matched.insert(place);
            if from.name != to.name {
                self.variant_renamed(name, from, to, Verdict::Compatible);
            }
            if from.index != to.index {
                self.variants_reordered(name, from, to);
            }
            self.contents((name, &written.tagging), from, to);
        }
        let untagged = |of: &'a Enum| of.variants.iter().filter(|one| one.untagged).collect();
        let (from, to): (Vec<_>, Vec<_>) = (untagged(written), untagged(read));
        known += from.len();
        self.untagged(name, from, to);
        let read = read.variants.iter().enumerate();
        let added = read.filter(|(place, to)| !to.untagged && !matched.contains(place));
        self.variants_added(name, &writes, added.map(|(_, to)| to));
        self.no_variant_known(name, written, known);
    }

    /// The first variant that fits is read, whatever its name.
    fn untagged(&mut self, name: &'a str, written: Vec<&'a Variant>, read: Vec<&'a Variant>) {
        if written.len() != read.len() {
            let text = format!(
                "`{}` has {} variants without names in the {} and {} in the {}; the first that fits \
                 is read",
                Name(name),
                written.len(),
                self.writer(),
                read.len(),
                self.reader(),
            );
            let rule = match written.len() < read.len() {
                true => Rule::VariantAdded,
                false => Rule::VariantRemoved,
            };
            self.differ(rule, Verdict::Warn, "", "", &text);
        }
        for (from, to) in written.into_iter().zip(read) {
            self.shapes(name, from, to);
        }
    }

    /// The contents of one variant.
    fn contents(
        &mut self,
        (name, tagging): (&'a str, &Tagging),
        from: &'a Variant,
        to: &'a Variant,
    ) {
        let internal = matches!(tagging, Tagging::Internal { .. });
        if !self.encoding.is_positional() && internal {
            let writes = self.merged(self.writer_types(), &from.shape, from);
            let reads = self.merged(self.reader_types(), &to.shape, to);
            if let (Some(from_fields), Some(to_fields)) = (writes, reads) {
                // A variant without content ignores fields.
                if to.shape == VariantShape::Unit {
                    return;
                }
                let step = Step::Variant(&from.name);
                return self.at(step, |judge| judge.structs(from_fields, to_fields));
            }
        }
        self.shapes(name, from, to);
    }

    /// The fields of a variant that are written beside its tag.
    fn merged(
        &self,
        types: &'a Types,
        shape: &'a VariantShape,
        of: &'a Variant,
    ) -> Option<Struct<'a>> {
        let fields: &[Field] = match shape {
            VariantShape::Unit => &[],
            VariantShape::Struct(fields) => fields,
            VariantShape::Newtype(ty) => match resolve(types, ty, self.encoding) {
                Form::Struct(of) => return Some(of),
                _ => return None,
            },
            VariantShape::Tuple(_) => return None,
        };
        let (name, deny_unknown_fields) = (&*of.name, false);
        Some(Struct {
            name,
            fields,
            deny_unknown_fields,
        })
    }

    fn shapes(&mut self, name: &str, from: &'a Variant, to: &'a Variant) {
        let step = Step::Variant(&from.name);
        let positional = self.encoding.is_positional();
        match (&from.shape, &to.shape) {
            (VariantShape::Unit, VariantShape::Unit) => {}
            (VariantShape::Newtype(writes), VariantShape::Newtype(reads)) => {
                self.within(step, writes, reads);
            }
            (VariantShape::Tuple(writes), VariantShape::Tuple(reads))
                if writes.len() == reads.len() =>
            {
                self.at(step, |judge| judge.elements(writes, reads));
            }
            (VariantShape::Struct(writes), VariantShape::Struct(reads)) => {
                let of = |name, fields| Struct {
                    name,
                    fields,
                    deny_unknown_fields: false,
                };
                let (writes, reads) = (of(&*from.name, writes), of(&*to.name, reads));
                self.at(step, |judge| judge.structs(writes, reads));
            }
            (writes, reads) if positional && count(writes) == count(reads) => {
                let (writes, reads) = (parts(writes, true), parts(reads, false));
                self.at(step, |judge| judge.elements(writes, reads));
            }
            (writes, reads) => {
                let text = format!(
                    "variant `{}` of `{}` has {} in the {} and {} in the {}",
                    Name(&from.name),
                    Name(name),
                    content(writes),
                    self.writer(),
                    content(reads),
                    self.reader(),
                );
                let (writes, reads) = (content(writes), content(reads));
                self.at(step, |judge| {
                    let rule = Rule::VariantChanged;
                    judge.differ(rule, Verdict::Incompatible, &writes, &reads, &text);
                });
            }
        }
    }

    fn variant_unknown(
        &mut self,
        name: &str,
        from: &Variant,
        tagging: &Tagging,
        fallback: Fallback<'_>,
    ) {
        let (variant, of) = (Name(&from.name), Name(name));
        let (writer, reader) = (self.writer(), self.reader());
        let (verdict, what) = match fallback.other {
            Some(other) => match self.as_other(from, tagging) {
                Verdict::Compatible => (
                    Verdict::Compatible,
                    format!("reads it as `{}`", Name(&other.name)),
                ),
                verdict => (
                    verdict,
                    format!("cannot read its content as `{}`", Name(&other.name)),
                ),
            },
            None if fallback.untagged => (
                Verdict::Warn,
                "may read it as one of its untagged variants".to_owned(),
            ),
            None => (Verdict::Warn, "rejects values of it".to_owned()),
        };
        let text =
            format!("variant `{variant}` of `{of}` is only in the {writer}; the {reader} {what}");
        let shown = variant.to_string();
        self.differ(Rule::VariantRemoved, verdict, &shown, "", &text);
    }

    /// A variant that is read as the one for unknown names.
    fn as_other(&self, from: &Variant, tagging: &Tagging) -> Verdict {
        match tagging {
            _ if from.shape == VariantShape::Unit => Verdict::Compatible,
            Tagging::Internal { .. } => Verdict::Compatible,
            // The content is taken for what follows.
            _ if self.encoding.is_positional() => Verdict::Incompatible,
            _ => Verdict::Warn,
        }
    }

    fn variants_added<'v>(
        &mut self,
        name: &str,
        writes: &HashMap<&str, usize>,
        added: impl Iterator<Item = &'v Variant>,
    ) {
        for to in added {
            // One that has moved is reported as such.
            if names(to).any(|name| writes.contains_key(name)) {
                continue;
            }
            let shown = Name(&to.name).to_string();
            let text = format!(
                "variant `{shown}` of `{}` is only in the {}",
                Name(name),
                self.reader()
            );
            self.differ(Rule::VariantAdded, Verdict::Compatible, "", &shown, &text);
        }
    }

    fn variant_renamed(&mut self, name: &str, from: &Variant, to: &Variant, verdict: Verdict) {
        let (old, new) = (Name(&from.name).to_string(), Name(&to.name).to_string());
        let remedy = match verdict {
            Verdict::Compatible => String::new(),
            _ => self.remedy(&format!("give it `#[serde(alias = \"{old}\")]`")),
        };
        let text = format!(
            "variant `{old}` of `{}` in the {} is `{new}` in the {}{remedy}",
            Name(name),
            self.writer(),
            self.reader(),
        );
        self.differ(Rule::VariantRenamed, verdict, &old, &new, &text);
    }

    fn variant_moved(&mut self, name: &str, from: &Variant, to: &Variant) {
        self.reordered(name, from, to, Verdict::Incompatible);
    }

    fn variants_reordered(&mut self, name: &str, from: &Variant, to: &Variant) {
        self.reordered(name, from, to, Verdict::Compatible);
    }

    fn reordered(&mut self, name: &str, from: &Variant, to: &Variant, verdict: Verdict) {
        let (written, read) = (
            format!("number {}", from.index),
            format!("number {}", to.index),
        );
        let how = match verdict {
            Verdict::Compatible => String::new(),
            _ => format!("; {} writes variants by number", self.encoding),
        };
        let text = format!(
            "variant `{}` of `{}` is {written} in the {} and {read} in the {}{how}",
            Name(&from.name),
            Name(name),
            self.writer(),
            self.reader(),
        );
        self.differ(Rule::VariantsReordered, verdict, &written, &read, &text);
    }

    fn no_variant_known(&mut self, name: &str, written: &Enum, known: usize) {
        if known == 0 && !written.variants.is_empty() {
            let text = format!(
                "`{}` has no variant that both the {} and the {} know",
                Name(name),
                self.writer(),
                self.reader(),
            );
            self.differ(Rule::VariantRemoved, Verdict::Incompatible, "", "", &text);
        }
    }
}

fn size(of: &Enum) -> usize {
    of.variants
        .iter()
        .map(|variant| 1 + variant.aliases.len())
        .sum()
}

fn names(variant: &Variant) -> impl Iterator<Item = &str> {
    let aliases = variant.aliases.iter().map(String::as_str);
    std::iter::once(&*variant.name).chain(aliases)
}

/// The handling of variants that a reader does not know.
#[derive(Clone, Copy)]
struct Fallback<'a> {
    /// The variant as which they are read.
    other: Option<&'a Variant>,
    /// `true` if they may be read as one without a name.
    untagged: bool,
}

impl<'a> Fallback<'a> {
    fn of(read: &'a Enum) -> Self {
        Self {
            other: read.variants.iter().find(|variant| variant.other),
            untagged: read.variants.iter().any(|variant| variant.untagged),
        }
    }
}

/// The places of the variants by their numbers.
fn by_index(of: &Enum) -> HashMap<u32, usize> {
    let mut at = HashMap::new();
    for (place, variant) in of.variants.iter().enumerate() {
        at.entry(variant.index).or_insert(place);
    }
    at
}

/// The places of the variants by all names that are read.
fn names_of(of: &Enum) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for (place, variant) in of.variants.iter().enumerate() {
        if !variant.untagged {
            names(variant).for_each(|name| {
                places.entry(name).or_insert(place);
            });
        }
    }
    places
}

fn parts(shape: &VariantShape, written: bool) -> Vec<&Type> {
    match shape {
        VariantShape::Struct(fields) => {
            let there = fields
                .iter()
                .filter(|f| if written { !f.read_only } else { !f.write_only });
            there.map(|field| &field.ty).collect()
        }
        shape => shape.parts(),
    }
}

fn count(shape: &VariantShape) -> usize {
    shape.parts().len()
}

fn content(shape: &VariantShape) -> String {
    match shape {
        VariantShape::Unit => "no content".to_owned(),
        VariantShape::Newtype(_) => "one value".to_owned(),
        VariantShape::Tuple(of) => format!("{} values without names", of.len()),
        VariantShape::Struct(_) => "named fields".to_owned(),
    }
}

fn in_words(tagging: &Tagging) -> String {
    match tagging {
        Tagging::External => "tagged by its key".to_owned(),
        Tagging::Internal { tag } => format!("tagged by `{}`", Name(tag)),
        Tagging::Adjacent { tag, content } => {
            format!(
                "tagged by `{}` with the content `{}`",
                Name(tag),
                Name(content)
            )
        }
        Tagging::Untagged => "untagged".to_owned(),
    }
}
