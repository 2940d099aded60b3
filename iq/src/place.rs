//! Places in the arguments of a method, and the names that are valid there.

use iip_rpc::schema::{Field, Method, Shape, Type, Types};
use serde_json::Value;

use crate::closest;

/// Maximum depth to which options and newtypes are followed.
pub(crate) const MAX_DEPTH: usize = 64;

/// Maximum number of names that an error lists.
const MAX_NAMES: usize = 12;

/// A place in the arguments of a method.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// All arguments: an object with their names, or the value of the only one.
    Arguments(&'a Method),
    /// A value of a type.
    Value(&'a Type),
    /// A value of unknown type.
    Unknown,
}

impl<'a> Place<'a> {
    /// Returns the place of the value with this name; [`Unknown`](Self::Unknown) if there is none.
    pub(crate) fn named(self, name: &str, types: &'a Types) -> Self {
        if let Self::Arguments(method) = self
            && let Some(arg) = method.args.iter().find(|arg| arg.name == name)
        {
            return Self::Value(&arg.ty);
        }
        if let Self::Value(ty) = self
            && let Type::Map(_, value) = resolve(ty, types)
        {
            return Self::Value(value);
        }
        let field = self.field(name, types);
        field.map_or(Self::Unknown, |field| Self::Value(&field.ty))
    }

    /// Returns `true` if the value with this name must not be shown.
    pub(crate) fn is_secret(self, name: &str, types: &'a Types) -> bool {
        self.field(name, types).is_some_and(|field| field.secret)
    }

    fn field(self, name: &str, types: &'a Types) -> Option<&'a Field> {
        let is_it =
            |field: &&Field| field.name == name || field.aliases.iter().any(|alias| alias == name);
        self.fields(types).iter().find(is_it)
    }

    /// Returns the place of an element of a list.
    pub(crate) fn element(self, types: &'a Types) -> Self {
        match self.ty(types) {
            Some(Type::Seq(of) | Type::Array(of, _)) => Self::Value(of),
            _ => Self::Unknown,
        }
    }

    /// Returns `true` for a list, to which each pair with its name adds an element.
    pub(crate) fn is_list(self, types: &'a Types) -> bool {
        matches!(self.ty(types), Some(Type::Seq(_) | Type::Array(..)))
    }

    /// Returns the type of the value, without options and newtypes around it.
    pub(crate) fn ty(self, types: &'a Types) -> Option<&'a Type> {
        match self {
            Self::Value(ty) => Some(resolve(ty, types)),
            _ => None,
        }
    }

    /// Returns `true` if the value may be `null`.
    pub(crate) fn is_optional(self, types: &'a Types) -> bool {
        match self {
            Self::Value(ty) => wrappers(ty, types).any(|ty| matches!(ty, Type::Option(_))),
            _ => false,
        }
    }

    /// Returns the names that an object here can have; none if they are not all known.
    pub(crate) fn names(self, types: &'a Types) -> Vec<&'a str> {
        let fields = self.fields(types);
        if let Self::Arguments(method) = self
            && fields.is_empty()
            && !has_unknown_names(method, types)
        {
            return method.args.iter().map(|arg| &*arg.name).collect();
        }
        fields.iter().map(|field| &*field.name).collect()
    }

    /// Returns the fields of a struct, or those of the only argument if it is a struct.
    fn fields(self, types: &'a Types) -> &'a [Field] {
        let ty = match self {
            Self::Arguments(method) => match &*method.args {
                [only] => &only.ty,
                _ => return &[],
            },
            Self::Value(ty) => ty,
            Self::Unknown => return &[],
        };
        let Type::Named(name) = resolve(ty, types) else {
            return &[];
        };
        match types.get(name).map(|definition| &definition.shape) {
            // A flattened field adds names that are not in the list.
            Some(Shape::Struct { fields, .. }) if !fields.iter().any(|field| field.flatten) => {
                fields
            }
            _ => &[],
        }
    }
}

/// Returns `true` if the arguments may be an object whose names are not all known: the value of the
/// only one.
fn has_unknown_names(method: &Method, types: &Types) -> bool {
    let [only] = &*method.args else {
        return false;
    };
    match resolve(&only.ty, types) {
        Type::Map(..) | Type::Any | Type::Opaque { .. } => true,
        Type::Named(name) => match types.get(name).map(|definition| &definition.shape) {
            Some(Shape::Struct { fields, .. }) => !fields.is_empty(),
            Some(Shape::Enum(_)) | None => true,
            _ => false,
        },
        _ => false,
    }
}

/// Returns an error text for the first name in `value` that the description does not have at its
/// place.
pub(crate) fn unknown_name(value: &Value, place: Place<'_>, types: &Types) -> Option<String> {
    match value {
        Value::Array(list) => {
            let mut list = list.iter();
            list.find_map(|value| unknown_name(value, place.element(types), types))
        }
        Value::Object(object) => object.iter().find_map(|(name, value)| {
            let inner = place.named(name, types);
            let names = place.names(types);
            if !matches!(inner, Place::Unknown) || names.is_empty() {
                return unknown_name(value, inner, types);
            }
            let mut text = format!("there is no `{name}` here");
            if let Some(close) = closest::of(name, names.iter().copied()) {
                text.push_str(&format!("; the closest is `{close}`"));
            }
            let known = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`"));
            let known: Vec<String> = known.collect();
            Some(format!("{text}; there can be {}", known.join(", ")))
        }),
        _ => None,
    }
}

/// Returns the type inside options and newtypes, in its JSON form.
fn resolve<'a>(ty: &'a Type, types: &'a Types) -> &'a Type {
    wrappers(ty, types).last().unwrap_or(ty)
}

/// Returns a type, and the types inside its options and newtypes, in their JSON form.
fn wrappers<'a>(ty: &'a Type, types: &'a Types) -> impl Iterator<Item = &'a Type> {
    let inner = |ty: &&'a Type| match ty {
        Type::Option(of) => Some(&**of),
        Type::ByFormat { readable, .. } => Some(&**readable),
        Type::Named(name) => match types.get(name).map(|found| &found.shape) {
            Some(Shape::Newtype(of)) => Some(of),
            _ => None,
        },
        _ => None,
    };
    std::iter::successors(Some(ty), inner).take(MAX_DEPTH)
}
