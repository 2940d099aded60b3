//! Completions in bash, which splits words such as `localhost:7000` and `name=value` into three.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::EnvCompleter;

use super::adapter::{candidates, index, write_script};

/// The adapter of bash, which joins the words as the program gets them.
pub(super) struct Bash;

/// The characters besides white space at which bash breaks words, but the program does not.
const BREAKS: [char; 2] = [':', '='];

/// The script that makes bash ask for completions, see [`write_script`].
const REGISTRATION: &str = r#"
_iq_complete() {
    local IFS=$'\n'
    COMPREPLY=( $( \
        {var}=bash \
        _CLAP_COMPLETE_INDEX="$COMP_CWORD" \
        _IQ_COMPLETE_LINE="${COMP_LINE:0:COMP_POINT}" \
        _IQ_COMPLETE_WORD="$2" \
        '{completer}' -- "${COMP_WORDS[@]}" 2>/dev/null \
    ) )
    if [[ "${COMPREPLY-}" =~ [=/:]$ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -F _iq_complete {bin}
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        _: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        write_script(REGISTRATION, var, bin, completer, buf)
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let joined = joined(&args, index().unwrap_or(0));
        for candidate in candidates(cmd, joined.words, joined.index, current_dir)? {
            let value = candidate.get_value().to_string_lossy();
            // bash replaces only what follows the last break.
            if let Some(rest) = value.strip_prefix(&joined.replaced) {
                writeln!(buf, "{rest}")?;
            }
        }
        Ok(())
    }
}

/// The words of a line, as the program would get them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) words: Vec<OsString>,
    /// The index of the word at the cursor.
    pub(super) index: usize,
    /// The part of this word that bash keeps.
    replaced: String,
}

/// Joins the words that bash has split, with the line up to the cursor.
pub(super) fn joined(parts: &[OsString], index: usize) -> Joined {
    let line = std::env::var("_IQ_COMPLETE_LINE").unwrap_or_default();
    let word = std::env::var("_IQ_COMPLETE_WORD").unwrap_or_default();
    join(&line, &word, parts, index)
}

fn join(line: &str, word: &str, parts: &[OsString], index: usize) -> Joined {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line;
    for part in parts.iter().take(index + 1) {
        let part = part.to_string_lossy();
        let trimmed = rest.trim_start();
        let is_apart = trimmed.len() < rest.len() || words.is_empty();
        // The word at the cursor may continue after the cursor.
        let part = if trimmed.starts_with(&*part) {
            &*part
        } else {
            trimmed
        };
        rest = trimmed.get(part.len()..).unwrap_or_default();
        match words.last_mut() {
            Some(last) if !is_apart => last.push_str(part),
            _ => words.push(part.to_owned()),
        }
    }
    if words.is_empty() {
        words.push(String::new());
    }
    let index = words.len() - 1;
    let last = &mut words[index];
    let quote = last.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let replaced = match quote {
        // In quotes, bash does not break words, and passes the word without the quote.
        Some(_) => {
            word.clone_into(last);
            String::new()
        }
        None => {
            let at = last.rfind(BREAKS).map_or(0, |at| at + 1);
            last.get(..at).unwrap_or_default().to_owned()
        }
    };
    let words = words
        .into_iter()
        .map(|word| unquoted(&word).into())
        .collect();
    Joined {
        words,
        index,
        replaced,
    }
}

/// Returns a word without the quotes around it.
fn unquoted(word: &str) -> &str {
    let inner = ['\'', '"']
        .iter()
        .find_map(|&quote| word.strip_prefix(quote)?.strip_suffix(quote));
    inner.unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(line: &str, word: &str, parts: &[&str]) -> (Vec<String>, usize, String) {
        let parts: Vec<OsString> = parts.iter().map(OsString::from).collect();
        let joined = join(line, word, &parts, parts.len() - 1);
        let words = joined
            .words
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        (words.collect(), joined.index, joined.replaced)
    }

    #[test]
    fn words_that_bash_breaks_are_joined() {
        let parts = ["iq", "call", "localhost", ":", "7000", "Ord"];
        let (words, index, kept) = joined("iq call localhost:7000 Ord", "Ord", &parts);
        assert_eq!(words, ["iq", "call", "localhost:7000", "Ord"]);
        assert_eq!((index, &*kept), (3, ""));

        let (words, index, kept) =
            joined("iq list localhost:", "", &["iq", "list", "localhost", ":"]);
        assert_eq!(words, ["iq", "list", "localhost:"]);
        assert_eq!((index, &*kept), (2, "localhost:"));

        let (words, index, kept) = joined("iq list a:1 ", "", &["iq", "list", "a", ":", "1", ""]);
        assert_eq!(words, ["iq", "list", "a:1", ""]);
        assert_eq!((index, &*kept), (3, ""));
    }

    #[test]
    fn words_in_quotes_are_whole() {
        let parts = ["iq", "call", "a", ":", "1", "O.p", "'{\"na"];
        let (words, index, kept) = joined("iq call a:1 O.p '{\"na", "{\"na", &parts);
        assert_eq!(words, ["iq", "call", "a:1", "O.p", "{\"na"]);
        assert_eq!((index, &*kept), (4, ""));
    }
}
