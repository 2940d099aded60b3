//! The source that a target names.

use std::sync::Arc;

use super::{Discover, Dns, FileSource, StaticList};
use crate::ConfigError;
use crate::balance::Target;

/// Returns the source of the backends of a target.
///
/// # Errors
///
/// Fails if the source is not part of this crate as it was built: `etcd://` is in the crate
/// `iip-discovery-etcd`, `dns+srv://` needs the feature `dns-srv`.
pub fn source_of(target: &Target) -> Result<Arc<dyn Discover>, ConfigError> {
    match target {
        Target::Single(_) | Target::Static(_) => {
            let backends = target.backends().unwrap_or_default();
            Ok(Arc::new(StaticList::new(backends)))
        }
        Target::Dns { host, port } => Ok(Arc::new(Dns::new(host.clone(), *port))),
        #[cfg(feature = "dns-srv")]
        Target::DnsSrv { name } => Ok(Arc::new(super::DnsSrv::new(name.clone()))),
        #[cfg(not(feature = "dns-srv"))]
        Target::DnsSrv { .. } => {
            let reason = format!(
                "`{target}` needs SRV records: enable the feature `dns-srv`, or write \
                 `dns://host.:port` for the addresses of a name"
            );
            Err(ConfigError::new("target", reason))
        }
        Target::File(path) => Ok(Arc::new(FileSource::new(path.clone()))),
        Target::Etcd { .. } => {
            let reason = format!(
                "the source of `{target}` is in the crate `iip-discovery-etcd`: create it there \
                 and pass it to `ClientBuilder::discover(source)`"
            );
            Err(ConfigError::new("target", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<Arc<dyn Discover>, String> {
        source_of(&text.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_names_its_source() {
        for (text, name) in [
            ("a:1", "static:a:1"),
            ("a:1#3,b:1#2", "static:a:1,b:1"),
            ("dns://a.:1", "dns://a.:1"),
            ("file:///etc/a", "file:///etc/a"),
        ] {
            assert_eq!(source(text).unwrap().describe(), name);
        }
    }

    #[test]
    fn the_error_of_a_source_elsewhere_says_where_it_is() {
        let error = source("etcd://a:2379/iip/").err().unwrap();
        assert!(error.contains("`iip-discovery-etcd`"), "{error}");
        assert!(error.contains("ClientBuilder::discover(source)"), "{error}");
    }

    #[test]
    fn srv_records_need_their_feature() {
        let source = source("dns+srv://_iip._tcp.a.").map(|source| source.describe());
        match cfg!(feature = "dns-srv") {
            true => assert_eq!(source.unwrap(), "dns+srv://_iip._tcp.a."),
            false => assert!(source.unwrap_err().contains("feature `dns-srv`")),
        }
    }
}
