//! Compilation of files to descriptors, by protox.

use std::path::{Path, PathBuf};

use miette::{Diagnostic, LabeledSpan, SourceCode};
use protox::Compiler;

use crate::error::{Error, Place, Problem};

/// The folders in which imports are looked up.
#[derive(Default)]
pub(crate) struct Includes(Vec<PathBuf>);

impl Includes {
    /// Uses these folders, or those of the files if there are none.
    pub(crate) fn new<'a>(includes: impl Iterator<Item = &'a Path>, protos: &[&Path]) -> Self {
        let mut all: Vec<_> = includes.map(Path::to_owned).collect();
        if all.is_empty() {
            let parents = protos.iter().filter_map(|proto| proto.parent());
            for parent in parents {
                let parent = match parent.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => parent,
                };
                if !all.iter().any(|include| include == parent) {
                    all.push(parent.to_owned());
                }
            }
        }
        Self(all)
    }

    /// Returns the path of the file that descriptors call `name`.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        let candidates = self.0.iter().map(|include| match include.as_os_str() {
            dot if dot == "." => PathBuf::from(name),
            _ => include.join(name),
        });
        let found = candidates.into_iter().find(|path| path.exists());
        found.unwrap_or_else(|| name.into())
    }

    fn listed(&self) -> String {
        let paths: Vec<_> = self
            .0
            .iter()
            .map(|include| include.display().to_string())
            .collect();
        paths.join(", ")
    }
}

/// Reads `protos` and all that they import.
pub(crate) fn compile(protos: &[&Path], includes: &Includes) -> Result<Compiler, Error> {
    let mut compiler = Compiler::new(&includes.0).map_err(|error| problems(&error, includes))?;
    compiler.include_imports(true).include_source_info(true);
    for proto in protos {
        if let Err(error) = compiler.open_file(proto) {
            return Err(match error.file() {
                // protox reports the same error for a missing file.
                None if error.is_file_not_found() => not_found(proto, includes),
                _ => problems(&error, includes),
            });
        }
    }
    Ok(compiler)
}

/// Returns the files that were read, without those that come with protox.
pub(crate) fn read_files(compiler: &Compiler) -> impl Iterator<Item = &Path> {
    compiler.files().filter_map(|file| file.path())
}

fn not_found(proto: &Path, includes: &Includes) -> Error {
    let reason = match proto.exists() {
        true => "in none of the include paths",
        false => "no such file; include paths",
    };
    let listed = includes.listed();
    Error::new(format!("{}: {reason}: {listed}", proto.display()))
}

/// Collects everything that protox reports about one file.
fn problems(error: &protox::Error, includes: &Includes) -> Error {
    let file = error.file().map(|name| includes.path_of(name));
    let mut all = Vec::new();
    let related = error.related().into_iter().flatten();
    for diagnostic in std::iter::once(error as &dyn Diagnostic).chain(related) {
        let mut text = diagnostic.to_string();
        if let Some(cause) = diagnostic.source() {
            text = format!("{text}: {cause}");
        }
        if let Some(help) = diagnostic.help() {
            text = format!("{text} ({help})");
        }
        if error.is_file_not_found() {
            text = format!("{text} (include paths: {})", includes.listed());
        }
        let labels: Vec<_> = diagnostic.labels().into_iter().flatten().collect();
        let main = main_label(&labels);
        let place = |at| file.clone().map(|file| Place { file, at });
        let at = match main {
            Some(label) => position(error.source_code(), label),
            None if text.ends_with("end of file") => file.as_deref().and_then(end_of),
            None => None,
        };
        all.push(Problem::new(place(at), text));
        let others = labels
            .iter()
            .filter(|label| !main.is_some_and(|main| std::ptr::eq(main, *label)));
        for label in others {
            let text = label.label().unwrap_or("see here");
            all.push(Problem::new(
                place(position(error.source_code(), label)),
                text,
            ));
        }
    }
    Error::all(all)
}

/// Returns the label at the mistake; the others show what it conflicts with.
fn main_label(labels: &[LabeledSpan]) -> Option<&LabeledSpan> {
    let found = |label: &&LabeledSpan| label.label() == Some("found here");
    labels.iter().find(found).or_else(|| labels.last())
}

fn position(source: Option<&dyn SourceCode>, label: &LabeledSpan) -> Option<(usize, usize)> {
    let contents = source?.read_span(label.inner(), 0, 0).ok()?;
    Some((contents.line() + 1, contents.column() + 1))
}

/// Returns the position after the last character of a file.
fn end_of(file: &Path) -> Option<(usize, usize)> {
    let text = std::fs::read_to_string(file).ok()?;
    let last = text.lines().next_back().unwrap_or_default();
    Some((text.lines().count().max(1), last.chars().count() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_of_files_and_what_they_import_but_not_of_what_comes_with_the_compiler() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proto"));
        let file = folder.join("names.proto");
        let protos: [&Path; 1] = [&file];
        let includes = Includes::new(std::iter::empty(), &protos);
        let Ok(compiler) = compile(&protos, &includes) else {
            panic!("the file can be compiled");
        };
        let mut read: Vec<_> = read_files(&compiler).collect();
        read.sort();
        assert_eq!(read, [folder.join("kinds.proto"), file.clone()]);
    }
}
