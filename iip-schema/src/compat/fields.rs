//! The comparison of structs, and of the fields of variants.

use std::collections::{HashMap, HashSet};

use super::forms::MAX_DEPTH;
use super::forms::{Form, Struct, resolve};
use super::judge::{Judge, MAX_STEPS, Step};
use super::report::{Rule, Verdict};
use crate::text::{Name, Shown};
use crate::types::{Field, Type, Types};

impl<'a> Judge<'a, '_> {
    pub(super) fn structs(&mut self, writer: Struct<'a>, reader: Struct<'a>) {
        if !self.charge(size(writer.fields) + size(reader.fields)) {
            return;
        }
        match self.encoding.is_positional() {
            true => self.structs_by_place(writer, reader),
            false => self.structs_by_name(writer, reader),
        }
    }

    fn structs_by_place(&mut self, writer: Struct<'a>, reader: Struct<'a>) {
        let mut all = writer.fields.iter().chain(reader.fields);
        if let Some(field) = all.find(|field| field.flatten) {
            let what = format!(
                "`{}` with the flattened field `{}`",
                Name(writer.name),
                Name(&field.name)
            );
            return self.needs_names(&what);
        }
        let written: Vec<&Field> = writer.fields.iter().filter(|f| !f.read_only).collect();
        let read: Vec<&Field> = reader.fields.iter().filter(|f| !f.write_only).collect();
        let writes: HashMap<&str, usize> = places(written.iter().map(|field| &*field.name));
        let reads = names_of(read.iter().copied());
        if written.len() != read.len() {
            return self.other_fields((writer, &written, &writes), (reader, &read, &reads));
        }
        for (place, (from, to)) in written.iter().zip(&read).enumerate() {
            let there = reads.get(&*from.name).copied();
            let moved_here = names(to).find_map(|name| writes.get(name)).copied();
            match (there, moved_here) {
                _ if names(to).any(|name| name == from.name) => {
                    if from.name != to.name {
                        self.field_renamed(from, to, writer);
                    }
                    self.within(Step::Field(&from.name), &from.ty, &to.ty);
                }
                (None, None) => {
                    self.field_renamed(from, to, writer);
                    self.within(Step::Field(&from.name), &from.ty, &to.ty);
                }
                (Some(there), _) => self.field_moved(&from.name, writer, place, there),
                (None, Some(here)) => self.field_moved(&to.name, writer, here, place),
            }
        }
    }

    fn field_moved(&mut self, name: &str, of: Struct<'_>, written: usize, read: usize) {
        let text = format!(
            "field `{}` of `{}` is at place {written} in the {} and at place {read} in the {}; {} \
             writes fields by place",
            Name(name),
            Name(of.name),
            self.writer(),
            self.reader(),
            self.encoding,
        );
        let (written, read) = (format!("place {written}"), format!("place {read}"));
        self.differ(
            Rule::FieldsReordered,
            Verdict::Incompatible,
            &written,
            &read,
            &text,
        );
    }

    fn field_renamed(&mut self, from: &Field, to: &Field, of: Struct<'_>) {
        let text = format!(
            "field `{}` of `{}` in the {} is `{}` in the {}",
            Name(&from.name),
            Name(of.name),
            self.writer(),
            Name(&to.name),
            self.reader(),
        );
        let (from, to) = (Name(&from.name).to_string(), Name(&to.name).to_string());
        self.differ(Rule::FieldRenamed, Verdict::Compatible, &from, &to, &text);
    }

    /// The numbers of fields differ.
    fn other_fields(
        &mut self,
        (writer, written, writes): (Struct<'_>, &[&Field], &HashMap<&str, usize>),
        (_, read, reads): (Struct<'_>, &[&Field], &HashMap<&str, usize>),
    ) {
        let removed = written
            .iter()
            .filter(|field| !reads.contains_key(&*field.name));
        let removed: Vec<&Field> = removed.copied().collect();
        let is_written = |field: &Field| names(field).any(|name| writes.contains_key(name));
        let added = read.iter().filter(|field| !is_written(field));
        let added: Vec<&Field> = added.copied().collect();
        let encoding = self.encoding;
        for (fields, rule, side) in [
            (&removed, Rule::FieldRemoved, self.writer()),
            (&added, Rule::FieldAdded, self.reader()),
        ] {
            for field in fields {
                let text = format!(
                    "field `{}` of `{}` is only in the {side}; {encoding} writes fields by place",
                    Name(&field.name),
                    Name(writer.name),
                );
                let ty = Shown::new(&field.ty).to_string();
                let is_removed = rule == Rule::FieldRemoved;
                let (from, to) = if is_removed { (&*ty, "") } else { ("", &*ty) };
                self.differ(rule, Verdict::Incompatible, from, to, &text);
            }
        }
        if removed.is_empty() && added.is_empty() {
            let text = format!(
                "`{}` has {} fields in the {} and {} in the {}",
                Name(writer.name),
                written.len(),
                self.writer(),
                read.len(),
                self.reader(),
            );
            self.differ(Rule::LengthChanged, Verdict::Incompatible, "", "", &text);
        }
    }

    fn structs_by_name(&mut self, writer: Struct<'a>, reader: Struct<'a>) {
        let (written, read) = (self.members(writer, true), self.members(reader, false));
        let writes: HashMap<&str, usize> = places(written.fields.iter().map(|m| &*m.field.name));
        let mut matched: HashSet<usize> = HashSet::new();
        let mut missing: Vec<(usize, Member<'a>)> = Vec::new();
        let reads = names_of(read.fields.iter().map(|member| member.field));
        for (place, to) in read.fields.iter().enumerate() {
            // A name that an earlier field has is not read as this one.
            let of_field = names(to.field).filter(|name| reads.get(name) == Some(&place));
            let mut all = of_field.filter_map(|name| writes.get(name)).copied();
            let found = all.next();
            let twice = all.any(|at| Some(at) != found);
            let Some((at, from)) = found.and_then(|at| Some((at, written.fields.get(at)?))) else {
                missing.push((place, *to));
                continue;
            };
            matched.insert(at);
            if twice {
                self.field_written_twice(to.field, reader);
            }
            if from.field.name != to.field.name {
                self.field_renamed(from.field, to.field, writer);
            }
            if from.may_be_skipped() && !to.is_optional() {
                self.field_skipped(from.field, reader);
            }
            self.within(Step::Field(&from.field.name), &from.field.ty, &to.field.ty);
        }
        for (place, to) in missing {
            let from = written
                .fields
                .get(place)
                .filter(|_| !matched.contains(&place));
            match from.filter(|from| self.is_alike(&from.field.ty, &to.field.ty)) {
                Some(from) => {
                    matched.insert(place);
                    self.name_changed(from.field, to, reader);
                }
                None => self.field_missing(to, reader, !written.rest.is_empty()),
            }
        }
        for (at, from) in written.fields.iter().enumerate() {
            if matched.contains(&at) {
                continue;
            }
            match read.rest.first() {
                Some(rest) => self.within(Step::Field(&from.field.name), &from.field.ty, rest),
                None => self.field_ignored(*from, reader, read.deny_unknown_fields),
            }
        }
        self.rest(&written, &read);
    }

    /// A reader rejects a field whose name and alias are written together.
    fn field_written_twice(&mut self, to: &Field, of: Struct<'_>) {
        let text = format!(
            "the {} writes the field `{}` of `{}` and an alias of it, and the {} rejects both \
             together",
            self.writer(),
            Name(&to.name),
            Name(of.name),
            self.reader(),
        );
        self.differ(Rule::FieldRenamed, Verdict::Incompatible, "", "", &text);
    }

    /// Compares the flattened parts of a struct that have no known fields.
    fn rest(&mut self, written: &Members<'a>, read: &Members<'a>) {
        if written.is_partly_unknown || read.is_partly_unknown {
            let text = "a flattened field has a form whose fields are not known";
            self.differ(Rule::OpaqueType, Verdict::Unknown, "", "", text);
        }
        for (from, to) in written.rest.iter().zip(&read.rest) {
            self.within(Step::Value, from, to);
        }
    }

    fn field_skipped(&mut self, field: &Field, of: Struct<'_>) {
        let text = format!(
            "the {} may leave out the field `{}`, which `{}` of the {} requires{}",
            self.writer(),
            Name(&field.name),
            Name(of.name),
            self.reader(),
            self.remedy("give it `#[serde(default)]`"),
        );
        self.differ(Rule::FieldSkipped, Verdict::Warn, "", "", &text);
    }

    fn field_missing(&mut self, to: Member<'_>, of: Struct<'_>, may_be_in_rest: bool) {
        let (writer, reader) = (self.writer(), self.reader());
        let (field, ty) = (Name(&to.field.name), Shown::new(&to.field.ty).to_string());
        let of = Name(of.name);
        let (verdict, text) = if to.is_optional() {
            let text =
                format!("field `{field}` of `{of}` is only in the {reader}, and may be missing");
            (Verdict::Compatible, text)
        } else {
            let text = format!(
                "the {writer} does not write the field `{field}`, which `{of}` of the {reader} \
                 requires{}",
                self.remedy("make it an `Option`, or give it `#[serde(default)]`")
            );
            let missing = if may_be_in_rest {
                Verdict::Warn
            } else {
                Verdict::Incompatible
            };
            (missing, text)
        };
        self.differ(Rule::FieldAdded, verdict, "", &ty, &text);
    }

    /// A field at the same place has the same type, but another name.
    fn name_changed(&mut self, from: &Field, to: Member<'_>, of: Struct<'_>) {
        let (old, new) = (Name(&from.name), Name(&to.field.name));
        let (verdict, lost) = match to.is_optional() {
            true => (Verdict::Warn, ": its value is lost"),
            false => (Verdict::Incompatible, ""),
        };
        let text = format!(
            "field `{old}` in the {} seems to be `{new}` of `{}` in the {}, which does not read that \
             name{lost}{}",
            self.writer(),
            Name(of.name),
            self.reader(),
            self.remedy(&format!("give it `#[serde(alias = \"{old}\")]`")),
        );
        let (old, new) = (old.to_string(), new.to_string());
        self.differ(Rule::FieldRenamed, verdict, &old, &new, &text);
    }

    fn field_ignored(&mut self, from: Member<'_>, of: Struct<'_>, denied: bool) {
        let (field, ty) = (
            Name(&from.field.name),
            Shown::new(&from.field.ty).to_string(),
        );
        let (writer, reader, of) = (self.writer(), self.reader(), Name(of.name));
        let (verdict, text) = match denied {
            false => (
                Verdict::Compatible,
                format!(
                    "field `{field}` is only in the {writer}; `{of}` of the {reader} ignores it"
                ),
            ),
            true => (
                match from.may_be_skipped() {
                    true => Verdict::Warn,
                    false => Verdict::Incompatible,
                },
                format!(
                    "field `{field}` is only in the {writer}, and `{of}` of the {reader} has \
                     `deny_unknown_fields`"
                ),
            ),
        };
        self.differ(Rule::FieldRemoved, verdict, &ty, "", &text);
    }

    /// Returns `true` if two types have the same form on the outside.
    fn is_alike(&self, writer: &'a Type, reader: &'a Type) -> bool {
        let from = resolve(self.writer_types(), writer, self.encoding);
        let to = resolve(self.reader_types(), reader, self.encoding);
        match (from, to) {
            (Form::Plain(from), Form::Plain(to)) => from == to,
            (from, to) => std::mem::discriminant(&from) == std::mem::discriminant(&to),
        }
    }

    pub(super) fn struct_as_map(
        &mut self,
        from: Struct<'a>,
        (key, value): (&'a Type, &'a Type),
        writer: &'a Type,
        reader: &'a Type,
    ) {
        let of_text = matches!(
            resolve(self.reader_types(), key, self.encoding),
            Form::Plain(Type::Text)
        );
        let verdict = if of_text {
            Verdict::Compatible
        } else {
            Verdict::Incompatible
        };
        let text = self.opposite(writer, reader, "");
        self.pair(Rule::MapChanged, verdict, writer, reader, &text);
        let members = self.members(from, true);
        for member in &members.fields {
            self.within(Step::Field(&member.field.name), &member.field.ty, value);
        }
    }

    pub(super) fn map_as_struct(
        &mut self,
        (key, value): (&'a Type, &'a Type),
        to: Struct<'a>,
        writer: &'a Type,
        reader: &'a Type,
    ) {
        let of_text = matches!(
            resolve(self.writer_types(), key, self.encoding),
            Form::Plain(Type::Text)
        );
        let verdict = if of_text {
            Verdict::Warn
        } else {
            Verdict::Incompatible
        };
        let text = self.opposite(writer, reader, "maps without its fields are rejected");
        self.pair(Rule::MapChanged, verdict, writer, reader, &text);
        let members = self.members(to, false);
        for member in &members.fields {
            self.within(Step::Field(&member.field.name), value, &member.field.ty);
        }
    }

    /// The fields of a struct, with those of flattened fields in their places.
    fn members(&mut self, of: Struct<'a>, written: bool) -> Members<'a> {
        let types = if written {
            self.writer_types()
        } else {
            self.reader_types()
        };
        let mut members = Members {
            fields: Vec::new(),
            rest: Vec::new(),
            is_partly_unknown: false,
            deny_unknown_fields: of.deny_unknown_fields,
        };
        let mut budget = MAX_STEPS;
        self.collect(
            types,
            of.fields,
            (written, false, 0),
            &mut members,
            &mut budget,
        );
        self.charge(MAX_STEPS - budget);
        members
    }

    fn collect(
        &self,
        types: &'a Types,
        fields: &'a [Field],
        (written, optional, depth): (bool, bool, usize),
        members: &mut Members<'a>,
        budget: &mut usize,
    ) {
        for field in fields {
            if *budget == 0 || depth == MAX_DEPTH {
                members.is_partly_unknown = true;
                return;
            }
            *budget -= 1;
            if if written {
                field.read_only
            } else {
                field.write_only
            } {
                continue;
            }
            if !field.flatten {
                members.fields.push(Member {
                    field,
                    in_option: optional,
                });
                continue;
            }
            let mut form = resolve(types, &field.ty, self.encoding);
            let mut optional = optional;
            if let Form::Option(of) = form {
                optional = true;
                form = resolve(types, of, self.encoding);
            }
            match form {
                Form::Struct(of) => {
                    let at = (written, optional, depth + 1);
                    self.collect(types, of.fields, at, members, budget);
                }
                Form::Map(_, value) => members.rest.push(value),
                Form::Plain(Type::Any) => members.rest.push(&Type::Any),
                Form::Plain(Type::Unit) => {}
                _ => members.is_partly_unknown = true,
            }
        }
    }
}

/// The fields that are seen in the place of a struct.
struct Members<'a> {
    fields: Vec<Member<'a>>,
    /// The types of the values of flattened maps.
    rest: Vec<&'a Type>,
    /// `true` if something is flattened that has no fields.
    is_partly_unknown: bool,
    deny_unknown_fields: bool,
}

#[derive(Clone, Copy)]
struct Member<'a> {
    field: &'a Field,
    /// `true` if it is flattened as part of an option.
    in_option: bool,
}

impl Member<'_> {
    /// Returns `true` if a writer may leave it out.
    fn may_be_skipped(&self) -> bool {
        self.in_option || self.field.may_be_skipped
    }

    /// Returns `true` if a reader accepts a value without it.
    fn is_optional(&self) -> bool {
        self.in_option || self.field.is_optional()
    }
}

/// The number of names that a comparison of fields looks at.
fn size(fields: &[Field]) -> usize {
    fields.iter().map(|field| 1 + field.aliases.len()).sum()
}

/// The names that are read as this field.
fn names(field: &Field) -> impl Iterator<Item = &str> {
    let aliases = field.aliases.iter().map(String::as_str);
    std::iter::once(&*field.name).chain(aliases)
}

/// The first place of each name.
pub(super) fn places<'n>(names: impl Iterator<Item = &'n str>) -> HashMap<&'n str, usize> {
    let mut places = HashMap::new();
    for (place, name) in names.enumerate() {
        places.entry(name).or_insert(place);
    }
    places
}

/// The first place of each name that is read.
fn names_of<'f>(fields: impl Iterator<Item = &'f Field>) -> HashMap<&'f str, usize> {
    let mut places = HashMap::new();
    for (place, field) in fields.enumerate() {
        names(field).for_each(|name| {
            places.entry(name).or_insert(place);
        });
    }
    places
}
