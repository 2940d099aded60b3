//! The comparison of values that have no fields: numbers, texts, options and collections.

use super::Encoding;
use super::forms::{Form, is_bytes, is_empty, is_plain_enum, resolve};
use super::judge::{Judge, Step};
use super::numbers;
use super::report::{Rule, Verdict};
use crate::text::Name;
use crate::types::Type;

impl<'a> Judge<'a, '_> {
    pub(super) fn forms(
        &mut self,
        forms: (Form<'a>, Form<'a>),
        writer: &'a Type,
        reader: &'a Type,
    ) {
        let named = !self.encoding.is_positional();
        match forms {
            (Form::TooDeep, _) | (_, Form::TooDeep) => self.too_large(),
            (Form::Opaque(name), _) | (_, Form::Opaque(name)) => {
                let text = format!("nothing is known about the type `{}`", Name(name));
                self.pair(Rule::OpaqueType, Verdict::Unknown, writer, reader, &text);
            }
            (Form::Plain(Type::Any), _) | (_, Form::Plain(Type::Any)) if !named => {
                self.needs_names("a value of any form");
            }
            (Form::Plain(Type::Any), Form::Plain(Type::Any)) => {}
            (Form::Plain(Type::Any), _) => {
                let text = format!("the {} may write a value of any form", self.writer());
                self.pair(Rule::AnyValue, Verdict::Warn, writer, reader, &text);
            }
            (_, Form::Plain(Type::Any)) => {
                let text = format!("the {} reads a value of any form", self.reader());
                self.pair(Rule::AnyValue, Verdict::Warn, writer, reader, &text);
            }
            (Form::Struct(from), Form::Struct(to)) => self.structs(from, to),
            (Form::Enum(from, written), Form::Enum(to, read)) => {
                self.enums((from, written), (to, read));
            }
            (Form::Option(from), Form::Option(to)) => self.types(from, to),
            (Form::Seq(from), Form::Seq(to)) => self.within(Step::Element, from, to),
            (Form::Map(key, value), Form::Map(read_key, read_value)) => {
                self.keys(key, read_key);
                self.within(Step::Value, value, read_value);
            }
            (Form::Array(from, len), Form::Array(to, read)) if len == read => {
                self.within(Step::Element, from, to);
            }
            (Form::Tuple(from), Form::Tuple(to)) if from.len() == to.len() => {
                self.elements(from, to);
            }
            (Form::Array(from, len), Form::Tuple(to)) if len == to.len() as u64 => {
                self.elements(std::iter::repeat_n(from, to.len()), to);
            }
            (Form::Tuple(from), Form::Array(to, len)) if len == from.len() as u64 => {
                self.elements(from, std::iter::repeat_n(to, from.len()));
            }
            (Form::Tuple(_) | Form::Array(..), Form::Tuple(_) | Form::Array(..)) => {
                let text = self.opposite(writer, reader, "the numbers of values differ");
                self.pair(
                    Rule::LengthChanged,
                    Verdict::Incompatible,
                    writer,
                    reader,
                    &text,
                );
            }
            (Form::Plain(from), Form::Plain(to)) if from == to => {}
            (from, to) if named => self.unlike_by_name((from, to), writer, reader),
            (from, to) => self.unlike_by_place((from, to), writer, reader),
        }
    }

    pub(super) fn elements(
        &mut self,
        writer: impl IntoIterator<Item = &'a Type>,
        reader: impl IntoIterator<Item = &'a Type>,
    ) {
        for (place, (from, to)) in writer.into_iter().zip(reader).enumerate() {
            self.within(Step::Place(place), from, to);
            if self.is_over() {
                return;
            }
        }
    }

    /// Keys of maps are texts in JSON.
    fn keys(&mut self, writer: &'a Type, reader: &'a Type) {
        if self.encoding == Encoding::Json {
            let from = resolve(self.writer_types(), writer, self.encoding);
            let to = resolve(self.reader_types(), reader, self.encoding);
            let is_number = |form| match form {
                Form::Plain(ty) => ty.integer().is_some() || *ty == Type::Bool,
                _ => false,
            };
            let rule = Rule::TextChanged;
            match (from, to) {
                (_, Form::Plain(Type::Text)) if is_number(from) => {
                    let text = self.opposite(writer, reader, "keys are texts in JSON");
                    return self.at(Step::Key, |judge| {
                        judge.pair(rule, Verdict::Compatible, writer, reader, &text);
                    });
                }
                (Form::Plain(Type::Text), _) if is_number(to) => {
                    let text = self.opposite(writer, reader, "other texts are rejected");
                    return self.at(Step::Key, |judge| {
                        judge.pair(rule, Verdict::Warn, writer, reader, &text);
                    });
                }
                _ => {}
            }
        }
        self.within(Step::Key, writer, reader);
    }

    /// Two types of different forms, where fields are identified by their places.
    fn unlike_by_place(&mut self, forms: (Form<'a>, Form<'a>), writer: &'a Type, reader: &'a Type) {
        let postcard = self.encoding == Encoding::Postcard;
        let utf8 = "bytes that are not UTF-8 are rejected";
        let (rule, verdict, why) = match forms {
            (Form::Struct(_) | Form::Tuple(_), Form::Struct(_) | Form::Tuple(_)) => {
                return self.products(forms, writer, reader);
            }
            (Form::Plain(Type::Unit), to) if is_empty(to) => return,
            (from, Form::Plain(Type::Unit)) if is_empty(from) => return,
            (from, to) if is_bytes(from) && is_bytes(to) => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (Form::Plain(Type::Text), to) if is_bytes(to) => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (from, Form::Plain(Type::Text)) if is_bytes(from) => {
                (Rule::TextChanged, Verdict::Warn, utf8)
            }
            (Form::Plain(Type::Char), Form::Plain(Type::Text)) if postcard => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (Form::Plain(Type::Text), Form::Plain(Type::Char)) if postcard => {
                let why = "longer texts are taken for their first character";
                (Rule::TextChanged, Verdict::Incompatible, why)
            }
            (Form::Plain(from), Form::Plain(to)) => numbers::compare(from, to, self.encoding)
                .unwrap_or((Rule::TypeChanged, Verdict::Incompatible, "")),
            (Form::Option(_), _) | (_, Form::Option(_)) => {
                let why = "an option has a byte before its value";
                (Rule::OptionChanged, Verdict::Incompatible, why)
            }
            (Form::Seq(_), Form::Array(..) | Form::Tuple(_))
            | (Form::Array(..) | Form::Tuple(_), Form::Seq(_)) => {
                let why = "a sequence has its length before its values";
                (Rule::SequenceChanged, Verdict::Incompatible, why)
            }
            (Form::Map(..), Form::Struct(_)) | (Form::Struct(_), Form::Map(..)) => {
                (Rule::MapChanged, Verdict::Incompatible, "")
            }
            _ => (Rule::TypeChanged, Verdict::Incompatible, ""),
        };
        let text = self.opposite(writer, reader, why);
        self.pair(rule, verdict, writer, reader, &text);
    }

    /// A struct and a tuple are the same bytes if their parts are.
    fn products(&mut self, forms: (Form<'a>, Form<'a>), writer: &'a Type, reader: &'a Type) {
        let (from, to) = (self.parts(forms.0, true), self.parts(forms.1, false));
        if !self.charge(from.len() + to.len()) {
            return;
        }
        if from.len() == to.len() {
            return self.elements(from, to);
        }
        let text = self.opposite(writer, reader, "the numbers of values differ");
        self.pair(
            Rule::LengthChanged,
            Verdict::Incompatible,
            writer,
            reader,
            &text,
        );
    }

    fn parts(&self, form: Form<'a>, written: bool) -> Vec<&'a Type> {
        match form {
            Form::Tuple(types) => types.iter().collect(),
            Form::Struct(of) => {
                let fields = of.fields.iter();
                let there = fields.filter(|f| if written { !f.read_only } else { !f.write_only });
                there.map(|field| &field.ty).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Two types of different forms, where fields are identified by their names.
    fn unlike_by_name(&mut self, forms: (Form<'a>, Form<'a>), writer: &'a Type, reader: &'a Type) {
        let json = self.encoding == Encoding::Json;
        if let (Form::Enum(_, of), _) | (_, Form::Enum(_, of)) = forms
            && !self.charge(of.variants.len())
        {
            return;
        }
        let (rule, verdict, why) = match forms {
            (Form::Plain(Type::Unit), Form::Option(_)) => {
                let why = "nothing is read as `None`";
                (Rule::OptionChanged, Verdict::Compatible, why)
            }
            (_, Form::Option(to)) => {
                self.pair_option(Verdict::Compatible, writer, reader, "");
                return self.types(writer, to);
            }
            (Form::Option(from), _) => {
                self.pair_option(Verdict::Warn, writer, reader, "`None` is rejected");
                return self.types(from, reader);
            }
            (Form::Plain(Type::Char), Form::Plain(Type::Text)) => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (Form::Plain(Type::Text), Form::Plain(Type::Char)) => (
                Rule::TextChanged,
                Verdict::Warn,
                "longer texts are rejected",
            ),
            (Form::Plain(Type::Text), Form::Plain(Type::Bytes)) if json => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (Form::Plain(Type::Text), Form::Plain(Type::Bytes)) => {
                let why = "not every type of bytes accepts a text";
                (Rule::TextChanged, Verdict::Warn, why)
            }
            (Form::Plain(Type::Bytes), Form::Plain(Type::Text)) if !json => {
                let why = "bytes that are not UTF-8 are rejected";
                (Rule::TextChanged, Verdict::Warn, why)
            }
            (Form::Seq(from), Form::Plain(Type::Bytes)) if !json && *from == Type::U8 => {
                let why = "not every type of bytes accepts a sequence";
                (Rule::TextChanged, Verdict::Warn, why)
            }
            (from, to) if is_bytes(from) && is_bytes(to) => {
                (Rule::TextChanged, Verdict::Compatible, "")
            }
            (Form::Plain(from), Form::Plain(to)) => numbers::compare(from, to, self.encoding)
                .unwrap_or((Rule::TypeChanged, Verdict::Incompatible, "")),
            (Form::Enum(_, from), Form::Plain(Type::Text)) if is_plain_enum(from) => {
                let why = "a variant is written as its name";
                (Rule::TextChanged, Verdict::Compatible, why)
            }
            (Form::Plain(Type::Text), Form::Enum(_, to)) if is_plain_enum(to) => {
                let why = "texts that are not variants are rejected";
                (Rule::TextChanged, Verdict::Warn, why)
            }
            (Form::Array(from, _), Form::Seq(to)) => {
                let text = self.opposite(writer, reader, "");
                let rule = Rule::SequenceChanged;
                self.pair(rule, Verdict::Compatible, writer, reader, &text);
                return self.within(Step::Element, from, to);
            }
            (Form::Tuple(from), Form::Seq(to)) => {
                let text = self.opposite(writer, reader, "");
                let rule = Rule::SequenceChanged;
                self.pair(rule, Verdict::Compatible, writer, reader, &text);
                return self.elements(from, std::iter::repeat_n(to, from.len()));
            }
            (Form::Seq(from), Form::Array(..) | Form::Tuple(_)) => {
                let text = self.opposite(writer, reader, "another number of values is rejected");
                self.pair(Rule::SequenceChanged, Verdict::Warn, writer, reader, &text);
                match forms.1 {
                    Form::Array(to, _) => self.within(Step::Element, from, to),
                    Form::Tuple(to) => self.elements(std::iter::repeat_n(from, to.len()), to),
                    _ => {}
                }
                return;
            }
            (Form::Struct(from), Form::Map(key, value)) => {
                return self.struct_as_map(from, (key, value), writer, reader);
            }
            (Form::Map(key, value), Form::Struct(to)) => {
                return self.map_as_struct((key, value), to, writer, reader);
            }
            _ => (Rule::TypeChanged, Verdict::Incompatible, ""),
        };
        let text = self.opposite(writer, reader, why);
        self.pair(rule, verdict, writer, reader, &text);
    }

    fn pair_option(&mut self, verdict: Verdict, writer: &Type, reader: &Type, why: &str) {
        let text = self.opposite(writer, reader, why);
        self.pair(Rule::OptionChanged, verdict, writer, reader, &text);
    }
}
