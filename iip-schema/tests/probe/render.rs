//! Descriptions as text: `[T]` is a sequence, `{K: V}` a map, `T?` an option, `A | B` what is
//! chosen by the format, `Name{..}` a struct, `Name<..>` an enum; `=` after a field is `default`.

use iip_schema::{Field, Shape, Tagging, Type, Types, VariantShape};

pub(super) fn render(ty: &Type, types: &Types) -> String {
    Render {
        types,
        met: Vec::new(),
    }
    .ty(ty)
}

struct Render<'a> {
    types: &'a Types,
    met: Vec<&'a str>,
}

impl<'a> Render<'a> {
    fn ty(&mut self, ty: &'a Type) -> String {
        match ty {
            Type::Option(of) => format!("{}?", self.ty(of)),
            Type::Seq(of) => format!("[{}]", self.ty(of)),
            Type::Array(of, len) => format!("[{}; {len}]", self.ty(of)),
            Type::Tuple(of) => format!("({})", self.all(of)),
            Type::Map(key, value) => {
                let key = self.ty(key);
                format!("{{{key}: {}}}", self.ty(value))
            }
            Type::ByFormat { readable, compact } => {
                let readable = self.ty(readable);
                format!("{readable} | {}", self.ty(compact))
            }
            Type::Named(name) => self.named(name),
            Type::Opaque { name, reason } => format!("opaque {name}: {reason}"),
            simple => format!("{simple:?}").to_lowercase(),
        }
    }

    fn all(&mut self, types: &'a [Type]) -> String {
        let types: Vec<String> = types.iter().map(|ty| self.ty(ty)).collect();
        types.join(", ")
    }

    fn named(&mut self, name: &'a str) -> String {
        if self.met.contains(&name) {
            return name.to_owned();
        }
        self.met.push(name);
        let Some(definition) = self.types.get(name) else {
            return format!("{name} without a definition");
        };
        match &definition.shape {
            Shape::Unit => format!("{name};"),
            Shape::Newtype(of) => format!("{name}({})", self.ty(of)),
            Shape::Tuple(of) => format!("{name}({})", self.all(of)),
            Shape::Struct {
                fields,
                deny_unknown_fields,
            } => {
                let closed = if *deny_unknown_fields { "" } else { ", .." };
                format!("{name}{{{}{closed}}}", self.fields(fields))
            }
            Shape::Enum(of) => {
                let mut text = format!("{name}<");
                match &of.tagging {
                    Tagging::External => {}
                    tagging => text += &format!("{tagging:?} "),
                }
                for variant in &of.variants {
                    if variant.index > 0 {
                        text += ", ";
                    }
                    let names = [std::slice::from_ref(&variant.name), &*variant.aliases].concat();
                    text += &names.join("/");
                    text += &match &variant.shape {
                        VariantShape::Unit => String::new(),
                        VariantShape::Newtype(of) => format!("({})", self.ty(of)),
                        VariantShape::Tuple(of) => format!("({})", self.all(of)),
                        VariantShape::Struct(fields) => format!("{{{}}}", self.fields(fields)),
                        other => format!("{other:?}"),
                    };
                    if variant.other {
                        text += " other";
                    }
                }
                text + ">"
            }
            other => format!("{other:?}"),
        }
    }

    fn fields(&mut self, fields: &'a [Field]) -> String {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| {
                let names = [std::slice::from_ref(&field.name), &*field.aliases].concat();
                let default = if field.default { " =" } else { "" };
                format!("{}: {}{default}", names.join("/"), self.ty(&field.ty))
            })
            .collect();
        fields.join(", ")
    }
}
