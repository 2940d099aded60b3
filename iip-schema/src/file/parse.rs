//! Descriptions from peers, which may be hostile.

use crate::description::Description;
use crate::text::Name;
use crate::types::{Shape, Type, VariantShape};

/// Limits on the size of a description. Without calls of the setters: 4 MiB, 10,000 types and
/// methods, 100,000 fields, variants and arguments, 500,000 types within types, and names of 1,024
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of JSON.
    pub bytes: usize,
    /// Types with names.
    pub types: usize,
    /// Methods.
    pub methods: usize,
    /// Fields, variants, aliases and arguments, in all types and methods together.
    pub members: usize,
    /// Types within types, in all types and methods together.
    pub nodes: usize,
    /// Bytes of a name or path.
    pub name_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            types: 10_000,
            methods: 10_000,
            members: 100_000,
            nodes: 500_000,
            name_bytes: 1024,
        }
    }
}

/// The reason why a description is rejected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// It is not JSON of a description. Types within types are limited to 128 levels.
    #[error("the description cannot be read: {}", Name(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// It has more of something than the limit allows.
    #[error("the description has {found} {what}, and the limit is {limit}")]
    TooMany {
        /// The kind of the items that exceed the limit.
        what: &'static str,
        /// Their number, or as many as were counted.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A name is too long.
    #[error("the name `{}` has {bytes} bytes, and the limit is {limit}", Name(.name))]
    LongName {
        /// The beginning of the name.
        name: String,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Reads a description from JSON that a peer has sent.
///
/// Names in it are not checked for anything but their length: escape them when you show them.
///
/// # Errors
///
/// It is not a description, or exceeds `limits`.
pub fn parse_description(json: &[u8], limits: &Limits) -> Result<Description, DescriptionError> {
    at_most("bytes", json.len(), limits.bytes)?;
    let description = serde_json::from_slice(json)?;
    check(&description, limits)?;
    Ok(description)
}

/// Checks a description against limits.
pub(super) fn check(description: &Description, limits: &Limits) -> Result<(), DescriptionError> {
    let mut count = Count {
        limits,
        members: 0,
        nodes: 0,
    };
    at_most("types", description.types.len(), limits.types)?;
    at_most("methods", description.methods.len(), limits.methods)?;
    count.name(&description.service)?;
    for method in &description.methods {
        count.name(&method.name)?;
        count.name(&method.path)?;
        let mut args = method.args.iter();
        args.try_for_each(|argument| count.member(&argument.name, &[]))?;
        method
            .parts()
            .into_iter()
            .try_for_each(|ty| count.nodes(ty))?;
    }
    for (name, definition) in description.types.iter() {
        count.name(name)?;
        definition
            .parts()
            .into_iter()
            .try_for_each(|ty| count.nodes(ty))?;
        match &definition.shape {
            Shape::Struct { fields, .. } => {
                let mut all = fields.iter();
                all.try_for_each(|field| count.member(&field.name, &field.aliases))?;
            }
            Shape::Enum(of) => {
                for variant in &of.variants {
                    count.member(&variant.name, &variant.aliases)?;
                    if let VariantShape::Struct(fields) = &variant.shape {
                        let mut all = fields.iter();
                        all.try_for_each(|field| count.member(&field.name, &field.aliases))?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

struct Count<'a> {
    limits: &'a Limits,
    members: usize,
    nodes: usize,
}

impl Count<'_> {
    fn name(&self, name: &str) -> Result<(), DescriptionError> {
        let limit = self.limits.name_bytes;
        if name.len() <= limit {
            return Ok(());
        }
        Err(DescriptionError::LongName {
            name: name.chars().take(64).collect(),
            bytes: name.len(),
            limit,
        })
    }

    fn member(&mut self, name: &str, aliases: &[String]) -> Result<(), DescriptionError> {
        self.members = self.members.saturating_add(1 + aliases.len());
        at_most(
            "fields, variants and arguments",
            self.members,
            self.limits.members,
        )?;
        aliases.iter().try_for_each(|alias| self.name(alias))?;
        self.name(name)
    }

    fn nodes(&mut self, ty: &Type) -> Result<(), DescriptionError> {
        let mut todo = vec![ty];
        while let Some(ty) = todo.pop() {
            self.nodes += 1;
            at_most("types within types", self.nodes, self.limits.nodes)?;
            if let Type::Named(name) | Type::Opaque { name, .. } = ty {
                self.name(name)?;
            }
            todo.extend(ty.parts());
        }
        Ok(())
    }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), DescriptionError> {
    if found <= limit {
        return Ok(());
    }
    Err(DescriptionError::TooMany { what, found, limit })
}
