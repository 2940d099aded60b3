//! Descriptions of the types of this crate that are part of messages.

use iip_schema::{Definition, Field, Registry, Schema, Shape, Type};

use crate::metadata::Metadata;
use crate::payload::Payload;
use crate::status::{Code, Status};

impl Schema for Code {
    fn describe(_: &mut Registry) -> Type {
        Type::U8
    }
}

impl Schema for Payload {
    fn describe(_: &mut Registry) -> Type {
        Type::Bytes
    }
}

impl Schema for Metadata {
    fn describe(_: &mut Registry) -> Type {
        Type::ByFormat {
            readable: Box::new(readable_metadata()),
            compact: Box::new(metadata(Type::Bytes)),
        }
    }
}

/// A value is a text if it is UTF-8, and bytes otherwise.
fn readable_metadata() -> Type {
    metadata(Type::Any)
}

fn metadata(value: Type) -> Type {
    Type::seq(Type::Tuple(vec![Type::Text, value]))
}

impl Schema for Status {
    fn describe(types: &mut Registry) -> Type {
        let (code, details) = (Code::describe(types), Payload::describe(types));
        let optional = |name, ty| {
            let mut field = Field::new(name, ty);
            field.default = true;
            field.may_be_skipped = true;
            field
        };
        let executed = Type::U8;
        let compact = vec![
            code.clone(),
            executed,
            Type::Text,
            details.clone(),
            metadata(Type::Bytes),
        ];
        let mut message = Field::new("message", Type::Text);
        message.default = true;
        let readable = types.define::<Self>("Status", |_| {
            Definition::new(Shape::Struct {
                fields: vec![
                    Field::new("code", code),
                    message,
                    optional("executed", Type::Bool),
                    optional("details", details),
                    optional("metadata", readable_metadata()),
                ],
                deny_unknown_fields: false,
            })
        });
        Type::ByFormat {
            readable: Box::new(readable),
            compact: Box::new(Type::Tuple(compact)),
        }
    }
}
