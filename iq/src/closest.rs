//! Suggestions for names that were mistyped.

/// The most changes within which a name is close: two, and one for names of up to five letters.
fn allowed(name: &str) -> usize {
    if name.chars().count() > 5 { 2 } else { 1 }
}

/// The name that is closest to `unknown`, if any is close. The case of letters does not matter.
pub(crate) fn of<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = unknown.to_lowercase();
    let distances = names.into_iter().filter_map(|name| {
        // What is much longer cannot be close, and would take time.
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
