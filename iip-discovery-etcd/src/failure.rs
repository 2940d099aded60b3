//! The failures of requests to etcd, and their consequences.

use std::time::Duration;

use iip_core::discover::DiscoverError;

/// Status codes of gRPC that etcd uses.
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const FAILED_PRECONDITION: u32 = 9;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The maximum number of characters of a text of others in an error or in the log.
const MAX_TEXT: usize = 200;

/// The failure of a request.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no connection.
    #[error("{0}")]
    Unreachable(String),
    /// The connection was made, and no answer came in time.
    #[error("no answer within {}", seconds(*.0))]
    Silent(Duration),
    /// The connection ended.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// etcd answered with an error.
    #[error("{message}")]
    Rejected {
        /// The code of gRPC; 2 if there was none.
        code: u32,
        /// The text of etcd.
        message: String,
    },
    /// etcd did not accept the name and the password.
    #[error(
        "etcd refused the user `{user}`: {message}; check the name and the password of \
         `EtcdBuilder::user`"
    )]
    WrongUser {
        /// The name.
        user: String,
        /// The text of etcd.
        message: String,
    },
    /// etcd requires a user, and none is set.
    #[error("etcd requires a user ({0}): set `EtcdBuilder::user`")]
    NoUser(String),
    /// The answer is not one of etcd, or exceeds a limit.
    #[error("{0}")]
    Bad(String),
    /// The watch has not delivered a change that etcd has.
    #[error("the watch has missed a change after revision {0}")]
    Stale(i64),
    /// A failure at a member, by its name.
    #[error("{0}: {1}")]
    At(String, Box<Self>),
    /// The failures of all members.
    #[error("etcd does not answer: {}", list(.0))]
    All(Vec<Self>),
}

impl Failure {
    /// Returns `true` if the same request may succeed at another member.
    pub(crate) fn try_next(&self) -> bool {
        match self {
            Self::Rejected { code, .. } => matches!(*code, UNAVAILABLE | DEADLINE_EXCEEDED),
            Self::WrongUser { .. } | Self::NoUser(_) => false,
            _ => true,
        }
    }

    /// Returns `true` if the request lacked a valid token, so that a new one may help.
    pub(crate) fn needs_token(&self) -> bool {
        match self {
            Self::Rejected { code, message } => {
                *code == UNAUTHENTICATED
                    || message.contains("invalid auth token")
                    || message.contains("auth store is old")
                    || no_user(message)
            }
            _ => false,
        }
    }

    /// Returns `true` if a retry cannot help until somebody changes the users of etcd.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Rejected { code, .. } => matches!(*code, PERMISSION_DENIED | UNAUTHENTICATED),
            Self::WrongUser { .. } | Self::NoUser(_) => true,
            Self::At(_, failure) => failure.is_denial(),
            _ => false,
        }
    }

    /// Returns `true` if a person learns nothing new from `other`. While members are down, their
    /// failures vary from one attempt to the next.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (self.is_down() && other.is_down()) || self.to_string() == other.to_string()
    }

    /// Returns `true` if no member could be reached, or was able to work.
    fn is_down(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent(_) | Self::Lost(_) => true,
            Self::Rejected { .. } => self.try_next(),
            Self::At(_, failure) => failure.is_down(),
            Self::All(failures) => failures.iter().all(Self::is_down),
            _ => false,
        }
    }

    /// Returns `true` if etcd does not know the lease.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Rejected {
                code: NOT_FOUND,
                ..
            }
        )
    }

    /// Returns `true` if etcd accepts requests without a token, and thus gives none.
    pub(crate) fn auth_is_off(&self) -> bool {
        matches!(self, Self::Rejected { code: FAILED_PRECONDITION, message }
            if message.contains("authentication is not enabled"))
    }

    /// Replaces the text of etcd about a missing user by one with the remedy.
    pub(crate) fn explain(self, user: Option<&str>) -> Self {
        match (self, user) {
            (Self::Rejected { message, .. }, None) if no_user(&message) => Self::NoUser(message),
            (failure, _) => failure,
        }
    }
}

fn no_user(message: &str) -> bool {
    message.contains("user name is empty")
}

impl From<Failure> for DiscoverError {
    /// Keeps the text only, which is also what its `Debug` shows.
    fn from(failure: Failure) -> Self {
        Self::new(failure.to_string())
    }
}

fn list(failures: &[Failure]) -> String {
    let texts: Vec<String> = failures.iter().map(Failure::to_string).collect();
    texts.join("; ")
}

/// Returns a duration as people write it.
fn seconds(duration: Duration) -> String {
    format!("{duration:?}")
}

/// Returns the beginning of a text of others, without control characters.
pub(crate) fn printable(text: &[u8]) -> String {
    let end = text.len().min(MAX_TEXT * 4);
    let text = String::from_utf8_lossy(text.get(..end).unwrap_or_default());
    let mut printed: String = text
        .chars()
        .take(MAX_TEXT)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        printed.push_str("..");
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_short_and_has_no_control_characters() {
        assert_eq!(printable(b"a\nb\xff\x1b[1m"), "a\\nb\u{fffd}\\u{1b}[1m");
        let long = printable("é".repeat(100_000).as_bytes());
        assert_eq!(long.chars().count(), MAX_TEXT + 2);
    }

    #[test]
    fn what_helps_against_a_failure_depends_on_its_code() {
        let rejected = |code, message: &str| Failure::Rejected {
            code,
            message: message.to_owned(),
        };
        assert!(rejected(14, "etcdserver: no leader").try_next());
        assert!(!rejected(7, "etcdserver: permission denied").try_next());
        assert!(rejected(7, "etcdserver: permission denied").is_denial());
        assert!(rejected(16, "etcdserver: invalid auth token").needs_token());
        assert!(rejected(3, "etcdserver: revision of auth store is old").needs_token());
        let empty = rejected(3, "etcdserver: user name is empty");
        assert!(empty.needs_token());
        let text = empty.clone().explain(None).to_string();
        assert!(text.contains("set `EtcdBuilder::user`"), "{text}");
        assert!(matches!(empty.explain(Some("a")), Failure::Rejected { .. }));
    }

    #[test]
    fn failures_of_members_that_are_down_are_alike() {
        let at = |failure| Failure::At("a:1".to_owned(), Box::new(failure));
        let refused = at(Failure::Unreachable("connection refused".to_owned()));
        let silent = at(Failure::Silent(Duration::from_secs(1)));
        let bad = at(Failure::Bad("HTTP status 404".to_owned()));
        let both = Failure::All(vec![refused.clone(), silent.clone()]);
        assert_eq!(
            both.to_string(),
            "etcd does not answer: a:1: connection refused; a:1: no answer within 1s"
        );
        assert!(both.is_like(&refused) && refused.is_like(&silent));
        assert!(!Failure::All(vec![refused.clone(), bad.clone()]).is_like(&both));
        assert!(!bad.is_like(&refused) && bad.is_like(&bad));
        let denied = at(Failure::NoUser("etcdserver: user name is empty".to_owned()));
        assert!(denied.is_denial() && !denied.is_like(&refused));
    }
}
