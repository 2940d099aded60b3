//! The settings of a build script for single services and methods.

use std::fmt;

/// The target of a [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TraitAttribute,
    MethodAttribute,
    ServiceSetting,
    TraitName,
}

/// One setting, for everything that `path` names.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All settings, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Settings(Vec<Rule>);

impl Settings {
    pub(crate) fn add(&mut self, kind: Kind, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Rule {
            kind,
            path: path.into(),
            text: text.into(),
        });
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Returns the settings for the service or method with this full name, which has no leading
    /// dot.
    pub(crate) fn of<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a str> {
        let rules = self.0.iter();
        rules
            .filter(move |rule| rule.kind == kind && rule.names(name))
            .map(|rule| rule.text.as_str())
    }
}

impl Rule {
    pub(crate) fn is_for_everything(&self) -> bool {
        self.path == "."
    }

    /// Returns `true` if `path` names the item with this full name.
    pub(crate) fn names(&self, name: &str) -> bool {
        if self.is_for_everything() {
            return true;
        }
        match self.path.strip_prefix('.') {
            Some(path) => {
                let rest = name.strip_prefix(path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            None => {
                let rest = name.strip_suffix(self.path.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

/// Formats the rule as the call of the builder that added it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = match self.kind {
            Kind::TraitAttribute => "trait_attribute",
            Kind::MethodAttribute => "method_attribute",
            Kind::ServiceSetting => "service_setting",
            Kind::TraitName => "trait_name",
        };
        write!(f, "{option}({:?}, {:?})", self.path, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_it_is_a_whole_part_of() {
        let names = |path: &str, name: &str| {
            let mut settings = Settings::default();
            settings.add(Kind::MethodAttribute, path, "#[x]");
            settings.of(Kind::MethodAttribute, name).next().is_some()
        };
        for path in [
            ".",
            ".kv",
            ".kv.v1",
            ".kv.v1.Kv",
            ".kv.v1.Kv.Get",
            "Get",
            "Kv.Get",
            "kv.v1.Kv.Get",
        ] {
            assert!(names(path, "kv.v1.Kv.Get"), "{path}");
        }
        for path in [
            "",
            ".kv.v",
            ".v1",
            ".kv.v1.Kv.Ge",
            "et",
            "v.Get",
            "Kv",
            ".kv.v1.Kv.Get.More",
        ] {
            assert!(!names(path, "kv.v1.Kv.Get"), "{path}");
        }
    }
}
