//! The canonical bytes of types and methods.

use std::collections::HashMap;

use twox_hash::XxHash64;

use super::cycles::components;
use crate::description::{Format, Method, MethodKind};
use crate::types::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};

/// The most levels of types within types, and of newtypes around a type.
const MAX_DEPTH: usize = 128;

/// The most rounds for the types of a cycle.
const MAX_ROUNDS: usize = 64;

const OPTION: u8 = 20;
const SEQ: u8 = 21;
const ARRAY: u8 = 22;
const PARTS: u8 = 23;
const MAP: u8 = 24;
const BY_FORMAT: u8 = 25;
const OPAQUE: u8 = 26;
const HASH: u8 = 27;
const TOO_DEEP: u8 = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Positional,
    Named,
}

/// Canonical bytes, with room for the hashes of named types.
#[derive(Default)]
pub(super) struct Form {
    bytes: Vec<u8>,
    /// The position of each hash, and the place of its type.
    holes: Vec<(usize, usize)>,
}

impl Form {
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn extend(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.bytes.extend(bytes);
    }

    pub(super) fn number(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn name(&mut self, name: &str) {
        self.number(name.len() as u64);
        self.bytes.extend_from_slice(name.as_bytes());
    }

    fn reference(&mut self, place: usize) {
        self.push(HASH);
        self.holes.push((self.bytes.len(), place));
        self.number(0);
    }

    pub(super) fn hash(&self) -> u64 {
        XxHash64::oneshot(0, &self.bytes)
    }

    /// The hash with those of the types that it refers to.
    fn hash_with(&mut self, hashes: &[u64]) -> u64 {
        for (at, place) in &self.holes {
            let hash = hashes.get(*place).copied().unwrap_or_default();
            if let Some(hole) = self.bytes.get_mut(*at..*at + 8) {
                hole.copy_from_slice(&hash.to_le_bytes());
            }
        }
        self.hash()
    }
}

/// The hashes of all named types.
pub(super) struct Hashes<'a> {
    mode: Mode,
    definitions: Vec<&'a Definition>,
    /// The places of the types in `definitions` and `of`.
    places: HashMap<&'a str, usize>,
    of: Vec<u64>,
}

impl<'a> Hashes<'a> {
    pub(super) fn of(types: &'a Types, mode: Mode) -> Self {
        let names = types.iter().enumerate();
        let mut hashes = Self {
            mode,
            definitions: types.iter().map(|(_, definition)| definition).collect(),
            places: names.map(|(place, (name, _))| (name, place)).collect(),
            of: Vec::new(),
        };
        let all = hashes.definitions.iter();
        let mut forms: Vec<Form> = all
            .map(|definition| hashes.definition(definition))
            .collect();
        let edges: Vec<Vec<usize>> = forms
            .iter()
            .map(|form| form.holes.iter().map(|(_, place)| *place).collect())
            .collect();
        let mut begin = Form::default();
        begin.push(b'R');
        hashes.of = vec![begin.hash(); forms.len()];
        for component in components(&edges) {
            component_hashes(&component, &edges, &mut forms, &mut hashes.of);
        }
        hashes
    }

    /// Follows names and newtypes.
    fn resolve<'t>(&self, ty: &'t Type) -> Resolved<'t>
    where
        'a: 't,
    {
        let mut ty = ty;
        for _ in 0..MAX_DEPTH {
            let name = match ty {
                Type::ByFormat { compact, .. } if self.mode == Mode::Positional => {
                    ty = compact;
                    continue;
                }
                Type::Named(name) => name,
                ty => return Resolved::Type(ty),
            };
            let Some(place) = self.places.get(&**name).copied() else {
                return Resolved::Type(ty);
            };
            match self
                .definitions
                .get(place)
                .map(|definition| &definition.shape)
            {
                Some(Shape::Unit) => return Resolved::Type(&Type::Unit),
                Some(Shape::Newtype(of)) => ty = of,
                _ => return Resolved::Named(place),
            }
        }
        Resolved::TooDeep
    }

    pub(super) fn method(&self, method: &Method) -> u64 {
        let mut form = Form::default();
        form.extend([b'M', kind(method.kind), format(method.format)]);
        form.push(u8::from(method.codec.as_deref() == Some("protobuf")));
        if self.mode == Mode::Named {
            form.push(u8::from(method.idempotent));
        }
        form.number(method.args.len() as u64);
        for argument in &method.args {
            if self.mode == Mode::Named {
                form.name(&argument.name);
                form.push(u8::from(matches!(argument.ty, Type::Option(_))));
            }
            self.ty(&mut form, &argument.ty, 0);
        }
        self.maybe(&mut form, method.requests.as_ref());
        self.ty(&mut form, &method.result, 0);
        self.maybe(&mut form, method.error.as_ref());
        if let Some(error) = &method.stream_error {
            self.ty(&mut form, error, 0);
        }
        form.hash_with(&self.of)
    }

    fn maybe(&self, form: &mut Form, ty: Option<&Type>) {
        form.push(u8::from(ty.is_some()));
        if let Some(ty) = ty {
            self.ty(form, ty, 0);
        }
    }

    fn definition(&self, definition: &Definition) -> Form {
        let mut form = Form::default();
        let positional = self.mode == Mode::Positional;
        match &definition.shape {
            // Not reached by name: these are looked through.
            Shape::Unit => self.ty(&mut form, &Type::Unit, 0),
            Shape::Newtype(of) => self.ty(&mut form, of, 0),
            Shape::Tuple(of) if positional => self.product(&mut form, of),
            Shape::Tuple(of) => {
                form.push(b'T');
                self.list(&mut form, of, 0);
            }
            Shape::Struct { fields, .. } if positional => self.fields_by_place(&mut form, fields),
            Shape::Struct {
                fields,
                deny_unknown_fields,
            } => {
                form.extend([b'S', u8::from(*deny_unknown_fields)]);
                self.fields_by_name(&mut form, fields);
            }
            Shape::Enum(of) => self.enumeration(&mut form, of),
        }
        form
    }

    /// Parts in a fixed order, without names.
    fn product(&self, form: &mut Form, types: &[Type]) {
        form.push(b'S');
        self.list(form, types, 0);
    }

    fn fields_by_place(&self, form: &mut Form, fields: &[Field]) {
        form.push(b'S');
        form.number(fields.len() as u64);
        for field in fields {
            // Only fields that one side leaves out have marks.
            let marks = marks(&[field.flatten, field.read_only, field.write_only]);
            if marks != 0 {
                form.extend([0, marks]);
            }
            self.ty(form, &field.ty, 0);
        }
    }

    fn fields_by_name(&self, form: &mut Form, fields: &[Field]) {
        form.number(fields.len() as u64);
        for field in fields {
            form.name(&field.name);
            self.aliases(form, &field.aliases);
            form.push(marks(&[
                field.flatten,
                field.read_only,
                field.write_only,
                field.may_be_skipped,
                field.is_optional(),
            ]));
            self.ty(form, &field.ty, 0);
        }
    }

    fn aliases(&self, form: &mut Form, aliases: &[String]) {
        let mut sorted: Vec<&String> = aliases.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        form.number(sorted.len() as u64);
        sorted.into_iter().for_each(|alias| form.name(alias));
    }

    fn enumeration(&self, form: &mut Form, of: &Enum) {
        form.push(b'E');
        let positional = self.mode == Mode::Positional;
        match &of.tagging {
            Tagging::External => form.push(0),
            Tagging::Untagged => form.push(3),
            Tagging::Internal { .. } if positional => form.push(1),
            Tagging::Adjacent { .. } if positional => form.push(2),
            Tagging::Internal { tag } => {
                form.push(1);
                form.name(tag);
            }
            Tagging::Adjacent { tag, content } => {
                form.push(2);
                form.name(tag);
                form.name(content);
            }
        }
        let mut variants: Vec<&Variant> = of.variants.iter().collect();
        if positional {
            variants.sort_by_key(|variant| variant.index);
        }
        form.number(variants.len() as u64);
        for variant in variants {
            form.push(marks(&[variant.other, variant.untagged]));
            form.number(u64::from(variant.index));
            if !positional {
                form.name(&variant.name);
                self.aliases(form, &variant.aliases);
            }
            self.content(form, &variant.shape);
        }
    }

    fn content(&self, form: &mut Form, shape: &VariantShape) {
        let positional = self.mode == Mode::Positional;
        match shape {
            VariantShape::Struct(fields) if positional => self.fields_by_place(form, fields),
            VariantShape::Unit if positional => self.product(form, &[]),
            VariantShape::Newtype(ty) if positional => {
                self.product(form, std::slice::from_ref(ty));
            }
            VariantShape::Tuple(of) if positional => self.product(form, of),
            VariantShape::Unit => form.push(0),
            VariantShape::Newtype(ty) => {
                form.push(1);
                self.ty(form, ty, 0);
            }
            VariantShape::Tuple(of) => {
                form.push(2);
                self.list(form, of, 0);
            }
            VariantShape::Struct(fields) => {
                form.push(3);
                self.fields_by_name(form, fields);
            }
        }
    }

    fn list(&self, form: &mut Form, types: &[Type], depth: usize) {
        form.number(types.len() as u64);
        types.iter().for_each(|ty| self.ty(form, ty, depth));
    }

    fn ty(&self, form: &mut Form, ty: &Type, depth: usize) {
        if depth > MAX_DEPTH {
            form.push(TOO_DEEP);
            return;
        }
        let ty = match self.resolve(ty) {
            Resolved::Type(ty) => ty,
            Resolved::TooDeep => return form.push(TOO_DEEP),
            Resolved::Named(place) => return form.reference(place),
        };
        let depth = depth + 1;
        match ty {
            Type::Bool => form.push(1),
            Type::U8 => form.push(2),
            Type::U16 => form.push(3),
            Type::U32 => form.push(4),
            Type::U64 => form.push(5),
            Type::U128 => form.push(6),
            Type::I8 => form.push(7),
            Type::I16 => form.push(8),
            Type::I32 => form.push(9),
            Type::I64 => form.push(10),
            Type::I128 => form.push(11),
            Type::F32 => form.push(12),
            Type::F64 => form.push(13),
            Type::Char => form.push(14),
            Type::Text => form.push(15),
            Type::Bytes => form.push(16),
            Type::Any => form.push(17),
            Type::Unit if self.mode == Mode::Named => form.push(18),
            Type::Unit => {
                form.push(PARTS);
                form.number(0);
            }
            Type::Option(of) => {
                form.push(OPTION);
                self.ty(form, of, depth);
            }
            Type::Seq(of) => {
                form.push(SEQ);
                self.ty(form, of, depth);
            }
            Type::Array(of, len) => {
                form.push(ARRAY);
                form.number(*len);
                self.ty(form, of, depth);
            }
            Type::Tuple(of) => {
                form.push(PARTS);
                self.list(form, of, depth);
            }
            Type::Map(key, value) => {
                form.push(MAP);
                self.ty(form, key, depth);
                self.ty(form, value, depth);
            }
            Type::ByFormat { readable, compact } => {
                form.push(BY_FORMAT);
                self.ty(form, readable, depth);
                self.ty(form, compact, depth);
            }
            Type::Named(of) | Type::Opaque { name: of, .. } => {
                form.push(OPAQUE);
                form.name(of);
            }
        }
    }
}

/// A type behind names and newtypes.
enum Resolved<'t> {
    Type(&'t Type),
    Named(usize),
    TooDeep,
}

/// Hashes types that refer to each other. Those that they refer to besides are hashed already.
fn component_hashes(component: &[usize], edges: &[Vec<usize>], forms: &mut [Form], of: &mut [u64]) {
    let is_cycle = match component {
        [one] => edges.get(*one).is_some_and(|uses| uses.contains(one)),
        _ => true,
    };
    let mut last = round(component, forms, of);
    if !is_cycle {
        return;
    }
    let mut different = distinct(&last);
    for _ in 1..MAX_ROUNDS {
        last = round(component, forms, of);
        let now = distinct(&last);
        let is_stable = now.len() == different.len();
        different = now;
        if is_stable {
            break;
        }
    }
    for (place, last) in component.iter().zip(&last) {
        let mut form = Form::default();
        form.push(b'C');
        form.number(*last);
        form.number(different.len() as u64);
        different.iter().for_each(|other| form.number(*other));
        set(of, *place, form.hash());
    }
}

/// Hashes each type once, with the hashes of the round before.
fn round(component: &[usize], forms: &mut [Form], of: &mut [u64]) -> Vec<u64> {
    let mut next = Vec::with_capacity(component.len());
    for place in component {
        next.extend(forms.get_mut(*place).map(|form| form.hash_with(of)));
    }
    for (place, hash) in component.iter().zip(&next) {
        set(of, *place, *hash);
    }
    next
}

fn set(of: &mut [u64], place: usize, hash: u64) {
    if let Some(slot) = of.get_mut(place) {
        *slot = hash;
    }
}

fn distinct(hashes: &[u64]) -> Vec<u64> {
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

fn marks(all: &[bool]) -> u8 {
    let bits = all.iter().enumerate();
    bits.map(|(place, is)| u8::from(*is) << place).sum()
}

fn kind(kind: MethodKind) -> u8 {
    match kind {
        MethodKind::Unary => 0,
        MethodKind::OneWay => 1,
        MethodKind::ClientStream => 2,
        MethodKind::ServerStream => 3,
        MethodKind::Bidirectional => 4,
        MethodKind::Subscription => 5,
    }
}

fn format(format: Format) -> u8 {
    match format {
        Format::Envelope => 0,
        Format::Json => 1,
        Format::Raw => 2,
    }
}
