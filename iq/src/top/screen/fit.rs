//! Fitting of texts and columns into a width. Widths are in columns of the terminal.

use ratatui::text::Span;

use super::super::table::{Cell, Column};

/// The minimum widths to which the most important text column, and the other ones, are cut.
const MIN_FIRST: usize = 28;
const MIN_TEXT: usize = 14;

/// The space between two columns.
pub(super) const GAP: usize = 2;

pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a text that is too long.
pub(super) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += width(c.encode_utf8(&mut [0; 4]));
        if taken >= max {
            break;
        }
        shown.push(c);
    }
    if max > 0 {
        shown.push('…');
    }
    shown
}

/// Breaks a text into at most `max` lines, also within words that are longer than a line. The last
/// line is cut if it is too long.
pub(super) fn wrap(text: &str, max_width: usize, max: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        for (place, part) in parts(word, max_width).into_iter().enumerate() {
            let is_last = lines.len() >= max;
            let Some(line) = lines.last_mut() else { break };
            let gap = if place > 0 || line.is_empty() {
                ""
            } else {
                " "
            };
            if is_last || width(line) + gap.len() + width(part) <= max_width {
                line.push_str(gap);
                line.push_str(part);
            } else {
                lines.push(part.to_owned());
            }
        }
    }
    lines.iter().map(|line| cut(line, max_width)).collect()
}

/// Breaks a word into parts that are not wider than a line.
fn parts(word: &str, max_width: usize) -> Vec<&str> {
    let (mut parts, mut begin, mut taken) = (Vec::new(), 0, 0);
    for (at, c) in word.char_indices() {
        let wide = width(c.encode_utf8(&mut [0; 4]));
        if taken + wide > max_width && at > begin {
            parts.push(&word[begin..at]);
            (begin, taken) = (at, 0);
        }
        taken += wide;
    }
    parts.push(&word[begin..]);
    parts
}

/// Returns the columns that fit, with their widths.
pub(super) fn columns(
    columns: &[Column],
    rows: &[Vec<Cell>],
    sort: Option<usize>,
    room: usize,
) -> Vec<(usize, usize)> {
    let natural = |(index, column): (usize, &Column)| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let widest = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
        // With room for the arrow.
        let arrow = usize::from(sort == Some(index));
        widest.max(column.head.len() + arrow)
    };
    let natural: Vec<usize> = columns.iter().enumerate().map(natural).collect();
    let least = |index: usize| match columns[index] {
        Column { is_text: false, .. } => natural[index],
        Column { rank: 0, .. } => natural[index].min(MIN_FIRST),
        Column { .. } => natural[index].min(MIN_TEXT),
    };
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let widths: usize = kept.iter().map(|&index| least(index)).sum();
        widths + GAP * kept.len().saturating_sub(1)
    };
    while needed(&kept) > room && kept.len() > 1 {
        let last = kept
            .iter()
            .enumerate()
            .max_by_key(|&(_, &index)| columns[index].rank);
        let Some((place, _)) = last else { break };
        kept.remove(place);
    }
    let mut left = room.saturating_sub(needed(&kept));
    let mut by_rank = kept.clone();
    by_rank.sort_by_key(|&index| columns[index].rank);
    let mut widths: Vec<(usize, usize)> = Vec::new();
    for index in by_rank {
        let more = (natural[index] - least(index)).min(left);
        left -= more;
        widths.push((index, least(index) + more));
    }
    widths.sort_unstable();
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_their_width_on_the_screen() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn lines_are_broken_between_words_and_the_last_one_is_cut() {
        assert_eq!(wrap("one two three", 7, 2), ["one two", "three"]);
        assert_eq!(wrap("one two three four", 7, 2), ["one two", "three …"]);
        assert_eq!(wrap("", 7, 2), [""]);
        assert_eq!(wrap("a 漢字漢字 bc", 5, 9), ["a", "漢字", "漢字", "bc"]);
        assert_eq!(wrap("a0123456789", 4, 2), ["a012", "345…"]);
    }

    #[test]
    fn columns_without_room_are_left_out_by_their_rank() {
        let column = |head, is_text, rank| Column {
            head,
            is_text,
            rank,
        };
        let all = [
            column("name", true, 0),
            column("in", true, 2),
            column("rate", false, 1),
        ];
        let rows = vec![vec![
            Cell::text("n".repeat(40)),
            Cell::text("server x"),
            Cell::text("10.0"),
        ]];
        let fitting = |room| columns(&all, &rows, None, room);
        assert_eq!(fitting(80), [(0, 40), (1, 8), (2, 4)]);
        assert_eq!(fitting(45), [(0, 29), (1, 8), (2, 4)]);
        assert_eq!(fitting(43), [(0, 37), (2, 4)]);
        assert_eq!(fitting(5), [(0, 28)]);
    }
}
