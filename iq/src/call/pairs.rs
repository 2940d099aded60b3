//! Arguments as pairs: `name=value`, `order.id=7`, `name:=JSON`.

use iip_rpc::schema::{Enum, Method, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde_json::{Map, Value};

use super::json;
use crate::exit::{Failure, Outcome};
use crate::place::{MAX_DEPTH, Place};

/// A pair as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The names, the outermost first.
    path: Vec<String>,
    value: String,
    /// Set if the value is JSON.
    is_json: bool,
}

impl Pair {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let wrong = || {
            Failure::Usage(format!(
                "`{text}` is neither JSON nor a pair such as `name=value` or `name:=JSON`"
            ))
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let (name, is_json) = match name.strip_suffix(':') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) || path.len() > MAX_DEPTH {
            return Err(wrong());
        }
        Ok(Self {
            path,
            value: value.to_owned(),
            is_json,
        })
    }

    fn name(&self) -> String {
        self.path.join(".")
    }
}

/// Converts pairs to the arguments of a method, as an object.
pub(crate) fn typed(pairs: Vec<Pair>, method: &Method, types: &Types) -> Outcome<Value> {
    let mut object = Map::new();
    for pair in pairs {
        add(&mut object, &pair, method, types)?;
    }
    Ok(Value::Object(object))
}

fn add(object: &mut Map<String, Value>, pair: &Pair, method: &Method, types: &Types) -> Outcome {
    let mut place = Place::Arguments(method);
    let mut object = object;
    let Some((last, before)) = pair.path.split_last() else {
        return Ok(());
    };
    let mut is_secret = false;
    for name in before {
        is_secret |= place.is_secret(name, types);
        place = place.named(name, types);
        let next = object.entry(name.clone());
        let next = next.or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(next) = next else {
            return Err(Failure::Usage(format!(
                "`{}`: `{name}` has a value of its own already",
                pair.name()
            )));
        };
        object = next;
    }
    is_secret |= place.is_secret(last, types);
    place = place.named(last, types);
    let shown = (!is_secret).then_some(&*pair.value);
    if place.is_list(types) && !pair.is_json && !pair.value.starts_with('[') {
        let element = value(pair, shown, place.element(types), types)?;
        match object
            .entry(last.clone())
            .or_insert_with(|| Value::Array(Vec::new()))
        {
            Value::Array(list) => list.push(element),
            _ => return Err(twice(pair)),
        }
        return Ok(());
    }
    match object.insert(last.clone(), value(pair, shown, place, types)?) {
        None => Ok(()),
        Some(_) => Err(twice(pair)),
    }
}

fn twice(pair: &Pair) -> Failure {
    Failure::Usage(format!("`{}` is given twice", pair.name()))
}

/// Converts the text of a pair to a value of the type at its place. Errors have `shown`, which is
/// the text unless it is secret.
fn value(pair: &Pair, shown: Option<&str>, place: Place<'_>, types: &Types) -> Outcome<Value> {
    let text = &*pair.value;
    let wrong = |expected: &str| {
        let name = pair.name();
        Failure::Usage(match shown {
            Some(text) => format!("`{name}`: expected {expected}, found `{text}`"),
            None => format!("`{name}`: expected {expected}"),
        })
    };
    let json = || json::parse(text);
    if pair.is_json {
        return json().map_err(|error| wrong(&format!("JSON ({error})")));
    }
    let Some(ty) = place.ty(types) else {
        return Ok(json().unwrap_or_else(|_| text.into()));
    };
    match ty {
        Type::Text | Type::Char | Type::Bytes => Ok(text.into()),
        _ if text == "null" && place.is_optional(types) => Ok(Value::Null),
        Type::Bool => match text {
            "true" | "yes" => Ok(true.into()),
            "false" | "no" => Ok(false.into()),
            _ => Err(wrong("true or false")),
        },
        Type::F32 | Type::F64 => match (json(), text) {
            (Ok(number @ Value::Number(_)), _) => Ok(number),
            (_, "NaN" | "Infinity" | "-Infinity") => Ok(text.into()),
            _ => Err(wrong("a number")),
        },
        ty if let Some((bits, signed)) = ty.integer() => {
            if !matches!(json(), Ok(Value::Number(_))) || !is_integer(text) {
                return Err(wrong("an integer"));
            }
            integer(text, bits, signed).ok_or_else(|| {
                let (name, sign) = (pair.name(), if signed { 'i' } else { 'u' });
                let text = shown.unwrap_or("the number");
                Failure::Usage(format!("`{name}`: {text} is out of range of {sign}{bits}"))
            })
        }
        ty => match enum_of(ty, types) {
            Some(of) => Ok(variant(text, of)),
            None => json().map_err(|error| wrong(&format!("JSON ({error})"))),
        },
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns an integer of a type; as a text if a [`Value`] does not hold it.
fn integer(text: &str, bits: u32, signed: bool) -> Option<Value> {
    if signed {
        let number: i128 = text.parse().ok()?;
        let sign = number >> (bits - 1);
        let fits = i64::try_from(number).map(Value::from);
        return (sign == 0 || sign == -1).then(|| fits.unwrap_or_else(|_| text.into()));
    }
    let number: u128 = text.parse().ok()?;
    let fits = u64::try_from(number).map(Value::from);
    (number <= u128::MAX >> (128 - bits)).then(|| fits.unwrap_or_else(|_| text.into()))
}

fn enum_of<'a>(ty: &Type, types: &'a Types) -> Option<&'a Enum> {
    let Type::Named(name) = ty else {
        return None;
    };
    match &types.get(name)?.shape {
        Shape::Enum(of) => Some(of),
        _ => None,
    }
}

/// Returns the unit variant that `text` names, or else `text` parsed as JSON.
fn variant(text: &str, of: &Enum) -> Value {
    let names_it = |variant: &Variant| {
        variant.name == text || variant.aliases.iter().any(|alias| alias == text)
    };
    let is_unit = |variant: &&Variant| variant.shape == VariantShape::Unit;
    let found = of.variants.iter().filter(is_unit).any(names_it);
    match (&of.tagging, json::parse(text)) {
        (Tagging::External, _) if found => text.into(),
        (Tagging::Internal { tag } | Tagging::Adjacent { tag, .. }, _) if found => {
            Value::Object(Map::from_iter([(tag.clone(), text.into())]))
        }
        (_, Ok(json)) => json,
        // The later check of all arguments reports the valid variants.
        (_, Err(_)) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use iip_rpc::schema::{Argument, Definition, Field};
    use serde_json::json;

    use super::*;

    fn types() -> Types {
        let mut types = Types::new();
        let fields = vec![
            Field::new("id", Type::U64),
            Field::new("note", Type::option(Type::Text)),
            Field::new("tags", Type::seq(Type::Text)),
            Field::new("colour", Type::Named("Colour".to_owned())),
        ];
        let deny_unknown_fields = false;
        let order = Definition::new(Shape::Struct {
            fields,
            deny_unknown_fields,
        });
        types.insert("Order", order);
        let variants = ["Red", "Green"];
        let variants = variants.iter().zip(0..);
        let variants = variants.map(|(name, at)| Variant::new(*name, at, VariantShape::Unit));
        let colour = Shape::Enum(Enum::new(Tagging::External, variants.collect()));
        types.insert("Colour", Definition::new(colour));
        types
    }

    fn method(args: &[(&str, Type)]) -> Method {
        let mut method = Method::new("place", "/orders/place");
        let args = args.iter();
        method.args = args
            .map(|(name, ty)| Argument::new(*name, ty.clone()))
            .collect();
        method
    }

    fn given(pairs: &[&str], method: &Method) -> Result<Value, String> {
        let pairs = pairs.iter().map(|pair| Pair::parse(pair));
        let pairs = pairs.collect::<Outcome<Vec<_>>>();
        let value = pairs.and_then(|pairs| typed(pairs, method, &types()));
        value.map_err(|failure| failure.to_string())
    }

    #[test]
    fn values_are_typed_by_the_description() {
        let order = method(&[
            ("order", Type::Named("Order".to_owned())),
            ("rush", Type::Bool),
        ]);
        let pairs = [
            "order.id=7",
            "order.note=007",
            "order.tags=a",
            "order.tags=b",
            "order.colour=Red",
            "rush=true",
        ];
        let wanted = json!({
            "order": {"id": 7, "note": "007", "tags": ["a", "b"], "colour": "Red"},
            "rush": true,
        });
        assert_eq!(given(&pairs, &order), Ok(wanted));
        let wanted = json!({"order": {"tags": ["x"]}});
        assert_eq!(given(&[r#"order.tags:=["x"]"#], &order), Ok(wanted.clone()));
        assert_eq!(given(&[r#"order.tags=["x"]"#], &order), Ok(wanted));
    }

    #[test]
    fn the_fields_of_the_only_argument_need_no_name() {
        let order = method(&[("order", Type::Named("Order".to_owned()))]);
        assert_eq!(given(&["id=7"], &order), Ok(json!({"id": 7})));
        assert_eq!(
            given(&["order.id=7"], &order),
            Ok(json!({"order": {"id": 7}}))
        );
        let number = method(&[("id", Type::U64)]);
        assert_eq!(
            given(&["id=18446744073709551615"], &number),
            Ok(json!({"id": u64::MAX}))
        );
    }

    #[test]
    fn a_repeated_name_makes_a_list_or_an_array() {
        let short = method(&[("short", Type::array(Type::U8, 3)), ("rush", Type::Bool)]);
        let pairs = ["short=1", "short=2", "short=3", "rush=no"];
        assert_eq!(
            given(&pairs, &short),
            Ok(json!({"short": [1, 2, 3], "rush": false}))
        );
        assert_eq!(
            given(&["short=[1,2,3]"], &short),
            Ok(json!({"short": [1, 2, 3]}))
        );
    }

    #[test]
    fn null_is_no_value_except_for_texts() {
        let maybe = method(&[
            ("id", Type::option(Type::U64)),
            ("ratio", Type::option(Type::F64)),
            ("rush", Type::option(Type::Bool)),
            ("note", Type::option(Type::Text)),
        ]);
        let pairs = ["id=null", "ratio=null", "rush=null", "note=null"];
        let wanted = json!({"id": null, "ratio": null, "rush": null, "note": "null"});
        assert_eq!(given(&pairs, &maybe), Ok(wanted));
        assert_eq!(given(&["note:=null"], &maybe), Ok(json!({"note": null})));
    }

    #[test]
    fn errors_do_not_show_secrets() {
        let mut pin = Field::new("pin", Type::U16);
        pin.secret = true;
        let mut types = Types::new();
        let shape = Shape::Struct {
            fields: vec![pin],
            deny_unknown_fields: false,
        };
        types.insert("Login", Definition::new(shape));
        let login = method(&[("login", Type::Named("Login".to_owned()))]);
        for (pair, reason) in [
            ("pin=x", "`pin`: expected an integer"),
            (
                "login.pin=65536",
                "`login.pin`: the number is out of range of u16",
            ),
        ] {
            let typed = typed(vec![Pair::parse(pair).unwrap()], &login, &types);
            assert_eq!(typed.unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn integers_are_in_the_range_of_their_type() {
        for (ty, most, least) in [
            (Type::U8, "255", "0"),
            (Type::U64, "18446744073709551615", "0"),
            (Type::U128, "340282366920938463463374607431768211455", "0"),
            (Type::I8, "127", "-128"),
            (Type::I64, "9223372036854775807", "-9223372036854775808"),
            (
                Type::I128,
                "170141183460469231731687303715884105727",
                "-170141183460469231731687303715884105728",
            ),
        ] {
            let name = format!("{ty:?}").to_lowercase();
            let one = method(&[("n", ty)]);
            for text in [most, least] {
                let value = given(&[&format!("n={text}")], &one).unwrap();
                let n = &value["n"];
                assert_eq!(
                    n.as_str().map_or_else(|| n.to_string(), str::to_owned),
                    text
                );
            }
            let digits = most.trim_end_matches(|c: char| !c.is_ascii_digit());
            let more = format!(
                "{}{}",
                &digits[..digits.len() - 1],
                u8::from(digits.ends_with('5')) + 8
            );
            for text in [
                &*more,
                &*if least == "0" {
                    "-1".to_owned()
                } else {
                    format!("-{more}9")
                },
            ] {
                let reason = format!("`n`: {text} is out of range of {name}");
                assert_eq!(given(&[&format!("n={text}")], &one), Err(reason));
            }
        }
    }

    #[test]
    fn wrong_values_are_reported_with_their_names() {
        let order = method(&[
            ("order", Type::Named("Order".to_owned())),
            ("rush", Type::Bool),
        ]);
        for (pairs, reason) in [
            (
                &["order.id=x"][..],
                "`order.id`: expected an integer, found `x`",
            ),
            (
                &["order.id=1.5"],
                "`order.id`: expected an integer, found `1.5`",
            ),
            (
                &[r#"order:={"id":1,"id":2}"#],
                "`order`: expected JSON (`id` is given twice at line 1 column 12), found \
                 `{\"id\":1,\"id\":2}`",
            ),
            (&["rush=1"], "`rush`: expected true or false, found `1`"),
            (&["rush=true", "rush=true"], "`rush` is given twice"),
            (
                &["rush=true", "rush.x=1"],
                "`rush.x`: `rush` has a value of its own already",
            ),
            (
                &["order:={"],
                "`order`: expected JSON (EOF while parsing an object at line 1 column 1), found \
                 `{`",
            ),
            (
                &["order"],
                "`order` is neither JSON nor a pair such as `name=value` or `name:=JSON`",
            ),
            (
                &["a..b=1"],
                "`a..b=1` is neither JSON nor a pair such as `name=value` or `name:=JSON`",
            ),
        ] {
            assert_eq!(given(pairs, &order), Err(reason.to_owned()));
        }
    }
}
