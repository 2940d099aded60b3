//! Conversion of names in Rust to names on the wire.

use syn::LitStr;

use crate::errors::Errors;

/// The values of `rename_all`, which are serde's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    const ALL: [(&'static str, Self); 8] = [
        ("lowercase", Self::Lower),
        ("UPPERCASE", Self::Upper),
        ("PascalCase", Self::Pascal),
        ("camelCase", Self::Camel),
        ("snake_case", Self::Snake),
        ("SCREAMING_SNAKE_CASE", Self::ScreamingSnake),
        ("kebab-case", Self::Kebab),
        ("SCREAMING-KEBAB-CASE", Self::ScreamingKebab),
    ];

    pub(crate) fn parse(text: &LitStr, errors: &mut Errors) -> Option<Self> {
        let found = Self::find(&text.value());
        if found.is_none() {
            let names = Self::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
            errors.at(text, format!("write one of {names}"));
        }
        found
    }

    /// The case that serde calls by this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, case)| case)
    }

    /// Converts the name of a method or a field, which is in snake case, to this case, as serde
    /// does.
    pub(crate) fn apply(self, name: &str) -> String {
        match self {
            Self::Lower | Self::Snake => name.to_owned(),
            Self::Upper | Self::ScreamingSnake => name.to_ascii_uppercase(),
            Self::Pascal => name.split('_').map(capitalized).collect(),
            Self::Camel => uncapitalized(&Self::Pascal.apply(name)),
            Self::Kebab => name.replace('_', "-"),
            Self::ScreamingKebab => name.to_ascii_uppercase().replace('_', "-"),
        }
    }

    /// Converts the name of a variant, which is in Pascal case, to this case, as serde does.
    pub(crate) fn apply_to_variant(self, name: &str) -> String {
        match self {
            Self::Pascal => name.to_owned(),
            Self::Lower => name.to_ascii_lowercase(),
            Self::Upper => name.to_ascii_uppercase(),
            Self::Camel => uncapitalized(name),
            // An underscore precedes each capital.
            Self::Snake => {
                let mut snake = String::new();
                for c in name.chars() {
                    if c.is_uppercase() && !snake.is_empty() {
                        snake.push('_');
                    }
                    snake.push(c.to_ascii_lowercase());
                }
                snake
            }
            Self::ScreamingSnake => Self::Snake.apply_to_variant(name).to_ascii_uppercase(),
            Self::Kebab => Self::Snake.apply_to_variant(name).replace('_', "-"),
            Self::ScreamingKebab => {
                let screaming = Self::ScreamingSnake.apply_to_variant(name);
                screaming.replace('_', "-")
            }
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn uncapitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// Converts `HTTPGateway` to `http_gateway`: an underscore precedes a capital that starts a word.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| chars.get(before));
        let follows_word =
            before.is_some_and(|before| before.is_lowercase() || before.is_numeric());
        let ends_acronym = before.is_some_and(|before| before.is_uppercase())
            && chars
                .get(index + 1)
                .is_some_and(|after| after.is_lowercase());
        if c.is_uppercase() && (follows_word || ends_acronym) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_name_of_the_trait_in_snake_case() {
        let table = [
            ("Greeter", "greeter"),
            ("KeyValueStore", "key_value_store"),
            ("HTTPGateway", "http_gateway"),
            ("Store2Cache", "store2_cache"),
            ("A", "a"),
            ("already_snake", "already_snake"),
        ];
        for (name, snake) in table {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn methods_are_renamed_as_serde_renames_fields() {
        let names = ["find", "find_all", "v2_find"];
        let table = [
            (Case::Lower, ["find", "find_all", "v2_find"]),
            (Case::Upper, ["FIND", "FIND_ALL", "V2_FIND"]),
            (Case::Pascal, ["Find", "FindAll", "V2Find"]),
            (Case::Camel, ["find", "findAll", "v2Find"]),
            (Case::Snake, ["find", "find_all", "v2_find"]),
            (Case::ScreamingSnake, ["FIND", "FIND_ALL", "V2_FIND"]),
            (Case::Kebab, ["find", "find-all", "v2-find"]),
            (Case::ScreamingKebab, ["FIND", "FIND-ALL", "V2-FIND"]),
        ];
        for (case, renamed) in table {
            assert_eq!(names.map(|name| case.apply(name)), renamed, "{case:?}");
        }
    }
}
