//! Suggestions for names that were mistyped.

/// Returns the maximum edit distance at which a name is close: 2, or 1 for up to five characters.
fn allowed(name: &str) -> usize {
    if name.chars().count() > 5 { 2 } else { 1 }
}

/// Returns the name that is closest to `unknown`, if any is close. Case is ignored.
pub(crate) fn of<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = unknown.to_lowercase();
    let distances = names.into_iter().filter_map(|name| {
        // Names of very different lengths cannot be close, and comparing them takes time.
        if name.len().abs_diff(unknown.len()) > 8 {
            return None;
        }
        let distance = strsim::osa_distance(&lower, &name.to_lowercase());
        (distance <= allowed(name)).then_some((distance, name))
    });
    distances.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_found() {
        let names = ["Orders", "Order", "Users", "id"];
        assert_eq!(of("Ordres", names), Some("Orders"));
        assert_eq!(of("orders", names), Some("Orders"));
        assert_eq!(of("Usr", names), None);
        assert_eq!(of("Payments", names), None);
        assert_eq!(of("", []), None);
    }
}
