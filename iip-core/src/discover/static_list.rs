//! A fixed list of backends.

use std::fmt::Write;
use std::sync::Arc;

use super::stream::unfold;
use super::{Discover, Snapshot, SnapshotStream};
use crate::balance::{BackendInfo, Target};

/// Maximum number of addresses in the name of a list.
const NAMED: usize = 4;

/// A fixed list of backends: one snapshot, which never changes.
///
/// ```
/// use iip_core::balance::{BackendInfo, Target};
/// use iip_core::discover::{Discover, StaticList};
///
/// let list = StaticList::new(vec![
///     BackendInfo::new("10.0.0.1:7000".parse()?).weight(3),
///     BackendInfo::new("10.0.0.2:7000".parse()?),
/// ]);
/// assert_eq!(list.describe(), "static:10.0.0.1:7000,10.0.0.2:7000");
///
/// let target: Target = "10.0.0.1:7000#3,10.0.0.2:7000#1".parse()?;
/// assert!(StaticList::from_target(&target).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticList {
    backends: Arc<[BackendInfo]>,
}

impl StaticList {
    /// Creates a source of these backends. Their ids should differ.
    #[must_use]
    pub fn new(backends: impl Into<Arc<[BackendInfo]>>) -> Self {
        Self {
            backends: backends.into(),
        }
    }

    /// Creates a source of the backends that a target lists itself: those of
    /// [`Target::backends`]. Returns `None` for a target that must be looked up.
    #[must_use]
    pub fn from_target(target: &Target) -> Option<Self> {
        target.backends().map(Self::new)
    }
}

impl From<Vec<BackendInfo>> for StaticList {
    fn from(backends: Vec<BackendInfo>) -> Self {
        Self::new(backends)
    }
}

impl Discover for StaticList {
    fn watch(&self) -> SnapshotStream {
        let snapshot = Snapshot::new(Arc::clone(&self.backends));
        unfold(Some(snapshot), |snapshot| async {
            match snapshot {
                Some(snapshot) => (Ok(snapshot), None),
                None => std::future::pending().await,
            }
        })
    }

    /// Returns the addresses, or the first ones of a long list.
    fn describe(&self) -> String {
        let mut name = "static:".to_owned();
        for (index, info) in self.backends.iter().take(NAMED).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(name, "{comma}{}", info.endpoint);
        }
        if let Some(more @ 1..) = self.backends.len().checked_sub(NAMED) {
            let _ = write!(name, " and {more} more");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::tests::{ids, next};
    use super::*;

    fn list(count: u16) -> StaticList {
        let backends = (1..=count).map(|port| {
            let endpoint = std::net::SocketAddr::from(([10, 0, 0, 1], port)).into();
            BackendInfo::new(endpoint)
        });
        backends.collect::<Vec<_>>().into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_watch_of_a_list_has_one_snapshot() {
        let list = list(2);
        for _ in 0..2 {
            let mut stream = list.watch();
            assert_eq!(ids(&mut stream).await, ["10.0.0.1:1", "10.0.0.1:2"]);
            let more = tokio::time::timeout(std::time::Duration::from_secs(1), next(&mut stream));
            assert!(more.await.is_err());
        }
    }

    #[test]
    fn the_name_of_a_list_has_few_addresses() {
        assert_eq!(list(1).describe(), "static:10.0.0.1:1");
        let long = "static:10.0.0.1:1,10.0.0.1:2,10.0.0.1:3,10.0.0.1:4";
        assert_eq!(list(4).describe(), long);
        assert_eq!(list(1000).describe(), format!("{long} and 996 more"));
        assert_eq!(list(0).describe(), "static:");
    }

    #[test]
    fn only_targets_with_addresses_are_lists() {
        let list = |text: &str| StaticList::from_target(&text.parse().unwrap());
        assert_eq!(list("a:1").unwrap().describe(), "static:a:1");
        assert_eq!(list("a:1#3,b:2#1").unwrap().describe(), "static:a:1,b:2");
        assert!(list("dns://a:1").is_none());
    }
}
