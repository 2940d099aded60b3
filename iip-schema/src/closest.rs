//! The existing path that is most similar to an unknown one.

/// Maximum number of single-letter changes within which a path counts as close, if the name at its
/// end is long.
const MAX_DISTANCE: usize = 2;

/// Length below which a name is close within one change only.
const LONG_NAME_BYTES: usize = 6;

/// Limits on the length and the number of paths that are compared: callers decide how often this
/// runs.
const MAX_PATH_BYTES: usize = 128;
const MAX_PATHS: usize = 256;

/// The path of `paths` that is closest to `unknown`, if any is close.
pub fn path<'a>(unknown: &str, paths: &[&'a str]) -> Option<&'a str> {
    if unknown.len() > MAX_PATH_BYTES {
        return None;
    }
    let candidates = paths.iter().copied().take(MAX_PATHS);
    let distances = candidates.filter_map(|path| Some((distance(unknown, path)?, path)));
    // The first of several equally close paths.
    let closest = distances.min_by_key(|&(distance, _)| distance);
    closest.map(|(_, path)| path)
}

/// The number of bytes that have to be replaced, inserted or removed to turn `b` into `a`; `None`
/// if it is too large for the two to be close.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    if b.len() > MAX_PATH_BYTES || a.len().abs_diff(b.len()) > MAX_DISTANCE {
        return None;
    }
    let name_is_long =
        b.rsplit(|&byte| byte == b'/').next().map_or(0, <[u8]>::len) >= LONG_NAME_BYTES;
    // Equal parts at both ends need no change.
    while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b)
        && first_a == first_b
    {
        (a, b) = (rest_a, rest_b);
    }
    while let ([rest_a @ .., last_a], [rest_b @ .., last_b]) = (a, b)
        && last_a == last_b
    {
        (a, b) = (rest_a, rest_b);
    }
    let allowed = if name_is_long { MAX_DISTANCE } else { 1 };
    changes(a, b, allowed)
}

/// The number of changes between `a` and `b`, of which `left` are allowed: skips what both have in
/// common up to the next difference.
fn changes(a: &[u8], b: &[u8], left: usize) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (a.get(same..)?, b.get(same..)?);
    if a.is_empty() && b.is_empty() {
        return Some(0);
    }
    let left = left.checked_sub(1)?;
    let replaced = (a.get(1..), b.get(1..));
    let removed = (a.get(1..), Some(b));
    let inserted = (Some(a), b.get(1..));
    let ways = [replaced, removed, inserted].into_iter();
    let ways = ways.filter_map(|(a, b)| changes(a?, b?, left));
    ways.min().map(|changes| changes + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_one_or_two_wrong_letters_is_found() {
        let paths = ["/shop/add", "/shop/square", "/shop/buy"];
        for (unknown, closest) in [
            ("/shop/ad", Some("/shop/add")),
            ("/shop/adds", Some("/shop/add")),
            ("/shop/odd", Some("/shop/add")),
            ("/chop/sqare", Some("/shop/square")),
            ("/shop/bay", Some("/shop/buy")),
            ("/shop/dad", None),
            ("/shop/sub", None),
            ("/shop", None),
            ("", None),
            ("/store/add", None),
        ] {
            assert_eq!(path(unknown, &paths), closest, "{unknown}");
        }
        assert_eq!(path("/shop/add", &[]), None);
    }

    #[test]
    fn the_closest_of_several_is_named() {
        let paths = ["/a/list_x", "/a/list_v2", "/a/lists"];
        assert_eq!(path("/a/list", &paths), Some("/a/lists"));
        assert_eq!(path("/a/list_v3", &paths), Some("/a/list_v2"));
    }

    #[test]
    fn long_paths_are_not_compared() {
        let long = "/".repeat(MAX_PATH_BYTES + 1);
        assert_eq!(path(&long, &["/"]), None);
        assert_eq!(path(&long[..MAX_PATH_BYTES], &[&long]), None);
    }
}
