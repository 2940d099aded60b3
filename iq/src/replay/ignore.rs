//! Fields that are not compared.

use std::fmt;

/// A place in a value: names of fields, and positions in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

/// The steps from a reply to a value in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(pub(super) Vec<Step>);

impl Place {
    pub(super) fn name(name: &str) -> Self {
        Self(vec![Step::Name(name.to_owned())])
    }

    pub(super) fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// Formats a place such as `items[2].price`; empty for the value as a whole.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) if number == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A path such as `order.updated_at`, which covers the field and everything in it. Positions in
/// lists are left out, and `*` matches any name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ignored(Vec<String>);

impl Ignored {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        match names.iter().any(String::is_empty) || text.contains(['[', ']']) {
            true => Err("expected names with dots between them, such as order.updated_at".into()),
            false => Ok(Self(names)),
        }
    }

    pub(super) fn covers(&self, place: &Place) -> bool {
        let mut steps = place.0.iter().filter_map(|step| match step {
            Step::Name(name) => Some(name),
            Step::Index(_) => None,
        });
        self.0
            .iter()
            .all(|name| steps.next().is_some_and(|step| name == "*" || name == step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_covers_a_field_with_everything_in_it() {
        let place = Place::name("items")
            .with(Step::Index(2))
            .with(Step::Name("price".to_owned()))
            .with(Step::Name("net".to_owned()));
        assert_eq!(place.to_string(), "items[2].price.net");
        for (path, covers) in [
            ("items", true),
            ("items.price", true),
            ("items.*.net", true),
            ("*.price", true),
            ("items.price.net.more", false),
            ("price", false),
            ("item", false),
        ] {
            assert_eq!(
                Ignored::parse(path).unwrap().covers(&place),
                covers,
                "{path}"
            );
        }
        assert!(!Ignored::parse("a").unwrap().covers(&Place::default()));
        for path in ["", "a..b", ".a", "a[1]"] {
            assert!(Ignored::parse(path).is_err(), "{path}");
        }
    }
}
