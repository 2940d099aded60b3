//! The bodies of calls, which are the same bytes for each call, or made for each one.

mod messages;
mod sample;
mod template;

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use iip_core::Printable;
use iip_rpc::codec::{CodecId, dynamic};
use iip_rpc::schema::{Description, Method};
use serde_json::Value;

pub(super) use self::messages::{Messages, Sending};
use self::template::{Around, Template};
use crate::call::{Arguments, Pair, text_in, typed};
use crate::exit::{Failure, Outcome};

/// The number of bodies that are made before the load begins, to find mistakes.
const TRIALS: usize = 100;

/// The bodies of calls. Clones share them.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// A body that is the same for each call.
    Fixed(Bytes),
    /// A body that is made for each call.
    Made(Arc<Maker>),
}

/// A maker of bodies.
#[derive(Debug)]
pub(super) struct Maker {
    source: Source,
    form: Form,
}

/// The source of values.
#[derive(Debug)]
enum Source {
    /// A text with templates.
    Text(Template),
    /// Pairs whose values have templates.
    Pairs(Vec<Template>),
    /// The description of the service.
    Description,
}

/// The form of bodies.
#[derive(Debug)]
enum Form {
    /// The text itself.
    Text,
    /// The arguments of a method.
    Arguments {
        described: Box<(Description, Method)>,
        codec: CodecId,
    },
}

impl Payload {
    /// Makes the bodies of raw requests, which may have templates.
    pub(super) fn of_data(data: &str, seed: u64) -> Outcome<Self> {
        let around = match is_json(data) && !data.trim_start().starts_with("{{") {
            true => Around::Json,
            false => Around::Text,
        };
        let template = Template::parse(data, around).map_err(Failure::Usage)?;
        Maker::tried(Source::Text(template), Form::Text, seed).map_err(Failure::Usage)
    }

    /// Makes the bodies with the arguments of a method without a description.
    pub(super) async fn of_unknown(args: &[String], seed: u64) -> Outcome<Self> {
        let in_file = text_in_file(args).await?;
        let args = in_file.as_ref().map_or(args, std::slice::from_ref);
        // This checks the syntax.
        let filled = filled(args, seed).map_err(Failure::Usage)?;
        let text = Arguments::read(&filled).await?.untyped()?;
        match args {
            [only] if filled != args => Self::of_data(only, seed),
            _ => Ok(Self::Fixed(text.into())),
        }
    }

    /// Makes the bodies with the arguments of a method, in the first codec that can encode them.
    pub(super) async fn of_arguments(
        args: &[String],
        service: &Description,
        method: &Method,
        codecs: &[CodecId],
        seed: u64,
    ) -> Outcome<(Self, CodecId)> {
        let name = Printable(format!("{}.{}", service.service, method.name)).to_string();
        let usage = |error: String| Failure::Usage(format!("{name}: {}", Printable(error)));
        let in_file = text_in_file(args).await?;
        let args = in_file.as_ref().map_or(args, std::slice::from_ref);
        let fixed = match args {
            [] => None,
            args => {
                // This checks the arguments, and names mistakes.
                let filled = filled(args, seed).map_err(usage)?;
                let text = Arguments::read(&filled)
                    .await?
                    .for_method(service, method)?;
                (filled == args).then_some(text)
            }
        };
        let made = Self::try_codecs(codecs, |codec| {
            let source = match &fixed {
                Some(text) => Source::Text(Template::verbatim(text)),
                None => Source::read(args)?,
            };
            Maker::tried(source, Form::of(service, method, codec), seed)
        });
        made.map_err(|error| match args.is_empty() {
            true => usage(format!(
                "no arguments can be made from its description: {error}; give ARGS"
            )),
            false => usage(error),
        })
    }

    fn try_codecs(
        codecs: &[CodecId],
        make: impl Fn(CodecId) -> Result<Self, String>,
    ) -> Result<(Self, CodecId), String> {
        let mut failed = "there is no codec for its arguments".to_owned();
        for &codec in codecs {
            match make(codec) {
                Ok(payload) => return Ok((payload, codec)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Returns the body of the next call.
    pub(super) fn next(&self, random: &mut Rng) -> Result<Bytes, String> {
        match self {
            Self::Fixed(body) => Ok(body.clone()),
            Self::Made(maker) => maker.make(random),
        }
    }

    /// Returns `true` if all bodies are the same.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }
}

impl Source {
    /// Parses templates. Without any, values are made from the description.
    fn read(args: &[String]) -> Result<Self, String> {
        match args {
            [] => Ok(Self::Description),
            [only] if is_json(only) => Ok(Self::Text(Template::parse(only, Around::Json)?)),
            pairs => {
                let pairs = pairs.iter().map(|pair| Template::parse(pair, Around::Text));
                Ok(Self::Pairs(pairs.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Returns `true` if all values are the same.
    fn is_fixed(&self, form: &Form) -> bool {
        match (self, form) {
            (Self::Text(template), _) => template.fixed().is_some(),
            (Self::Description, Form::Arguments { described, .. }) => described.1.args.is_empty(),
            _ => false,
        }
    }
}

impl Form {
    fn of(service: &Description, method: &Method, codec: CodecId) -> Self {
        Self::Arguments {
            described: Box::new((service.clone(), method.clone())),
            codec,
        }
    }
}

impl Maker {
    /// Makes some bodies, so that mistakes are found before the load begins.
    fn tried(source: Source, form: Form, seed: u64) -> Result<Payload, String> {
        let is_fixed = source.is_fixed(&form);
        let (maker, mut random) = (Self { source, form }, Rng::with_seed(seed));
        let body = maker.make(&mut random)?;
        if is_fixed {
            return Ok(Payload::Fixed(body));
        }
        for _ in 0..TRIALS {
            maker.make(&mut random)?;
        }
        Ok(Payload::Made(Arc::new(maker)))
    }

    fn make(&self, random: &mut Rng) -> Result<Bytes, String> {
        let Form::Arguments { described, codec } = &self.form else {
            return match &self.source {
                Source::Text(template) => Ok(template.fill(random).into()),
                _ => Err("there is no text".to_owned()),
            };
        };
        let (service, method) = &**described;
        let value: Value = match &self.source {
            Source::Text(template) => {
                let text = template.fill(random);
                let value = serde_json::from_str(&text);
                value.map_err(|error| format!("the arguments are not JSON: {error}: {text}"))?
            }
            Source::Pairs(templates) => {
                let pairs = templates.iter().map(|pair| Pair::parse(&pair.fill(random)));
                let pairs = pairs.collect::<Outcome<_>>();
                let typed = pairs.and_then(|pairs| typed(pairs, method, &service.types));
                typed.map_err(|failure| failure.to_string())?
            }
            Source::Description => sample::arguments(method, &service.types, random),
        };
        let mut body = BytesMut::new();
        dynamic::encode_arguments(*codec, method, &service.types, &value, &mut body)
            .map_err(|error| error.to_string())?;
        Ok(body.freeze())
    }
}

/// Returns the text of `@FILE` or `-`, if that is the only argument.
async fn text_in_file(args: &[String]) -> Outcome<Option<String>> {
    let file = match args {
        [only] if only == "-" => only.as_str(),
        [only] if only.starts_with('@') => &only[1..],
        _ => return Ok(None),
    };
    let text = text_in(Path::new(file)).await?;
    if text.trim().is_empty() {
        let text = format!("{file}: it is empty, and arguments are JSON");
        return Err(Failure::Usage(text));
    }
    Ok(Some(text))
}

/// Returns `true` if an argument is meant as JSON, not as a pair.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[', '"'])
}

/// Returns the arguments of one call, with their templates filled in.
fn filled(args: &[String], seed: u64) -> Result<Vec<String>, String> {
    let mut random = Rng::with_seed(seed);
    let filled = args.iter().map(|arg| {
        let around = if is_json(arg) {
            Around::Json
        } else {
            Around::Text
        };
        Ok(Template::parse(arg, around)?.fill(&mut random))
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use iip_rpc::schema::{
        Argument, Definition, Enum, Field, Shape, Tagging, Type, Variant, VariantShape,
    };

    use super::*;

    /// Returns a method whose argument has a part of every kind.
    fn everything() -> (Description, Method) {
        let mut service = Description::new("s");
        let mut variants = vec![
            Variant::new("Unit", 0, VariantShape::Unit),
            Variant::new(
                "One",
                1,
                VariantShape::Newtype(Type::Named("Tree".to_owned())),
            ),
            Variant::new("Two", 2, VariantShape::Tuple(vec![Type::I8, Type::U128])),
        ];
        let fields = vec![Field::new("x", Type::F32)];
        variants.push(Variant::new("Fields", 3, VariantShape::Struct(fields)));
        let shape = Shape::Enum(Enum::new(Tagging::External, variants));
        service.types.insert("Kind", Definition::new(shape));
        let fields = vec![
            Field::new("kind", Type::Named("Kind".to_owned())),
            Field::new("children", Type::seq(Type::Named("Tree".to_owned()))),
            Field::new("by_number", Type::map(Type::U16, Type::Text)),
            Field::new("bytes", Type::Bytes),
            Field::new("array", Type::array(Type::Char, 3)),
            Field::new(
                "maybe",
                Type::option(Type::Tuple(vec![Type::Bool, Type::F64])),
            ),
            Field::new("none", Type::Unit),
        ];
        let shape = Shape::Struct {
            fields,
            deny_unknown_fields: true,
        };
        service.types.insert("Tree", Definition::new(shape));
        let mut method = Method::new("m", "/s/m");
        method
            .args
            .push(Argument::new("tree", Type::Named("Tree".to_owned())));
        method.args.push(Argument::new("id", Type::I64));
        (service, method)
    }

    #[tokio::test]
    async fn arguments_are_made_for_types_of_every_kind() {
        let (service, method) = everything();
        for codec in [CodecId::BINCODE, CodecId::JSON] {
            let made = Payload::of_arguments(&[], &service, &method, &[codec], 3).await;
            let (payload, chosen) = made.unwrap();
            assert_eq!((chosen, payload.is_fixed()), (codec, false));
            let mut random = Rng::with_seed(3);
            let bodies: Vec<Bytes> = (0..50)
                .map(|_| payload.next(&mut random).unwrap())
                .collect();
            assert!(bodies.iter().any(|body| *body != bodies[0]));
            let mut random = Rng::with_seed(3);
            assert_eq!(payload.next(&mut random).unwrap(), bodies[0]);
        }
    }

    #[tokio::test]
    async fn templates_are_typed_and_what_does_not_fit_is_named() {
        let mut method = Method::new("m", "/s/m");
        method.args.push(Argument::new("id", Type::U8));
        let service = Description::new("s");
        let codecs = [CodecId::BINCODE, CodecId::JSON];
        let of = async |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let made = Payload::of_arguments(&args, &service, &method, &codecs, 1).await;
            made.map(|(payload, _)| payload)
                .map_err(|failure| failure.to_string())
        };
        for args in [r#"{"id": {{int 1..200}}}"#, "id={{int 1..200}}"] {
            assert!(!of(&[args]).await.unwrap().is_fixed(), "{args}");
        }
        assert!(of(&["id=7"]).await.unwrap().is_fixed());
        for (args, reason) in [
            (r#"{"id": {{int 1..1000}}}"#, "u8"),
            ("id={{string 4}}", "expected an integer"),
            (r#"{"id": {{int 1..2}}"#, "not JSON"),
        ] {
            let error = of(&[args]).await.unwrap_err();
            assert!(error.contains(reason), "{args}: {error}");
        }
    }
}
