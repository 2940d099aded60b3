//! The settings of an [`Etcd`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use iip_core::balance::Target;
use iip_core::discover::DiscoverError;
use iip_core::transport::Endpoint;

use crate::Etcd;
use crate::client::{Client, Settings, User};
use crate::http::{Dialer, Member};
use crate::keys::Prefix;

/// The maximum number of members. Clusters have 3 to 7.
const MAX_MEMBERS: usize = 64;
/// The range of [`EtcdBuilder::lease_ttl`].
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum of all other durations.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A configuration of [`Etcd`]. What is wrong with it is reported by [`build`](Self::build).
#[must_use]
pub struct EtcdBuilder {
    members: Vec<String>,
    prefix: String,
    fault: Option<String>,
    user: Option<User>,
    #[cfg(feature = "tls")]
    tls: Option<iip_core::tls::ClientTls>,
    connect_timeout: Duration,
    settings: Settings,
}

impl EtcdBuilder {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            prefix: String::new(),
            fault: None,
            user: None,
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_secs(3),
            settings: Settings {
                request_timeout: Duration::from_secs(5),
                lease_ttl: Duration::from_secs(10),
                status_interval: Duration::from_secs(30),
                stale_after: Duration::from_secs(10),
            },
        }
    }

    /// Adds members of the cluster, as `host:port`. At least one is required. The first one that is
    /// used is chosen at random, and the next one if it fails.
    pub fn members<M: Into<String>>(mut self, members: impl IntoIterator<Item = M>) -> Self {
        self.members.extend(members.into_iter().map(Into::into));
        self
    }

    /// Sets the prefix of the keys, such as `/services/orders`. A slash is appended unless it ends
    /// with one, so that the keys of `/services/orders2` are not among them. Required.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds the members, and sets the prefix, of a [`Target::Etcd`].
    pub fn target(mut self, target: &Target) -> Self {
        match target {
            Target::Etcd { members, prefix } => {
                let members = members.iter().map(|(host, port)| {
                    let host = host.clone();
                    Endpoint::Tcp { host, port: *port }.to_string()
                });
                self.members(members).prefix(prefix)
            }
            other => {
                self.fault = Some(format!(
                    "target `{other}` is not one of etcd: write `etcd://host:port/prefix`"
                ));
                self
            }
        }
    }

    /// Sets the name and the password of a user of etcd. Default: none.
    ///
    /// They are sent to etcd for a token, which is renewed when etcd does not accept it any more.
    /// Without TLS, everyone on the network can read them.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some(User {
            name: name.into(),
            password: password.into(),
        });
        self
    }

    /// Connects by TLS. Default: no TLS.
    ///
    /// A client certificate is sent if the configuration has one. Its common name is no user for
    /// the JSON gateway of etcd: set [`user`](Self::user) too if etcd requires one.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: iip_core::tls::ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the maximum duration of connecting to one member, including TLS. Default: 3 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the time within which one member must answer a request, after which the next one is
    /// asked. Default: 5 s. Requests of a registration get a third of the TTL at most.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.settings.request_timeout = limit;
        self
    }

    /// Sets the time after which a server that has crashed is removed from etcd: from 1 s to a day,
    /// in whole seconds. Default: 10 s. It is renewed after each third. etcd may grant more.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.settings.lease_ttl = ttl;
        self
    }

    /// Sets the time between two checks whether the watch still delivers all changes. Default:
    /// 30 s. A check is a short request on another connection, to another member if there is one.
    pub fn status_interval(mut self, interval: Duration) -> Self {
        self.settings.status_interval = interval;
        self
    }

    /// Sets the time for which a change may be missing in the watch, after a check has seen it,
    /// before the watch is replaced. Default: 10 s.
    pub fn stale_after(mut self, limit: Duration) -> Self {
        self.settings.stale_after = limit;
        self
    }

    /// Creates the source and registry. It does not connect yet.
    ///
    /// # Errors
    ///
    /// Fails if the members or the prefix are missing, a member is not `host:port`, a target is not
    /// one of etcd, or a duration is out of its range.
    pub fn build(self) -> Result<Etcd, DiscoverError> {
        match &self.fault {
            Some(fault) => Err(DiscoverError::new(fault.clone())),
            None => self.checked().map_err(DiscoverError::new),
        }
    }

    fn checked(self) -> Result<Etcd, String> {
        let members: Vec<Member> = self
            .members
            .iter()
            .map(|text| member(text))
            .collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err("`EtcdBuilder::members` is empty: add `host:2379`".to_owned());
        }
        if members.len() > MAX_MEMBERS {
            return Err(format!(
                "`EtcdBuilder::members` has more than {MAX_MEMBERS} members"
            ));
        }
        if self.prefix.is_empty() {
            return Err(
                "`EtcdBuilder::prefix` is empty: set one, such as `/services/orders`".into(),
            );
        }
        if self.user.as_ref().is_some_and(|user| user.name.is_empty()) {
            return Err("the name of `EtcdBuilder::user` is empty".to_owned());
        }
        let settings = self.settings;
        let least = Duration::from_millis(1);
        for (name, value, min, max) in [
            ("lease_ttl", settings.lease_ttl, MIN_TTL, MAX_TTL),
            ("connect_timeout", self.connect_timeout, least, MAX_DURATION),
            (
                "request_timeout",
                settings.request_timeout,
                least,
                MAX_DURATION,
            ),
            (
                "status_interval",
                settings.status_interval,
                least,
                MAX_DURATION,
            ),
            ("stale_after", settings.stale_after, least, MAX_DURATION),
        ] {
            if !(min..=max).contains(&value) {
                return Err(format!(
                    "`EtcdBuilder::{name}` is {value:?}, which is not from {min:?} to {max:?}"
                ));
            }
        }
        let dialer = Dialer {
            connect_timeout: self.connect_timeout,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        Ok(Etcd {
            client: Arc::new(Client::new(members, dialer, self.user, settings)),
            prefix: Arc::new(Prefix::new(self.prefix)),
        })
    }
}

fn member(text: &str) -> Result<Member, String> {
    match text.parse::<Endpoint>() {
        Ok(endpoint @ Endpoint::Tcp { .. }) => Ok(Member {
            name: endpoint.to_string(),
            endpoint,
        }),
        _ => Err(format!(
            "member `{text}` is not valid: write `host:2379`, without a scheme"
        )),
    }
}

impl fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBuilder")
            .field("members", &self.members)
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|user| &user.name))
            .field("connect_timeout", &self.connect_timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(builder: EtcdBuilder) -> String {
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn a_source_describes_itself_without_the_password() {
        let builder = Etcd::builder()
            .members(["a:1", "[::1]:2"])
            .prefix("/x")
            .user("me", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
        let etcd = builder.build().unwrap();
        assert_eq!(etcd.to_string(), "etcd://a:1,[::1]:2/x/");
        assert!(!format!("{etcd:?}").contains("secret"));
        let target: Target = "etcd://a:1,[::1]:2/x/".parse().unwrap();
        assert_eq!(
            Etcd::from_target(&target).unwrap().to_string(),
            target.to_string()
        );
        assert_eq!(
            Etcd::new(["a:1"], "x").unwrap().to_string(),
            "etcd://a:1/x/"
        );
    }

    #[test]
    fn a_mistake_is_reported_with_the_option() {
        let valid = || Etcd::builder().members(["a:1"]).prefix("/x");
        assert!(error(Etcd::builder().prefix("/x")).contains("`EtcdBuilder::members` is empty"));
        assert!(error(valid().prefix("")).contains("`EtcdBuilder::prefix` is empty"));
        for member in ["a", "http://a:1", "unix:/a", "", "a:1/b:2"] {
            let text = error(valid().members([member]));
            assert!(text.contains("write `host:2379`"), "{member}: {text}");
        }
        assert!(error(valid().members(vec!["a:1"; 64])).contains("more than 64"));
        let zero = Duration::ZERO;
        assert!(error(valid().lease_ttl(zero)).contains("`EtcdBuilder::lease_ttl` is 0ns"));
        assert!(error(valid().status_interval(zero)).contains("status_interval"));
        assert!(error(valid().stale_after(Duration::MAX)).contains("stale_after"));
        assert!(error(valid().request_timeout(zero)).contains("request_timeout"));
        assert!(error(valid().connect_timeout(zero)).contains("connect_timeout"));
        assert!(error(valid().user("", "x")).contains("`EtcdBuilder::user`"));
        let target: Target = "a:1".parse().unwrap();
        assert!(error(valid().target(&target)).contains("target `a:1` is not one of etcd"));
    }
}
