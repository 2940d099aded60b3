//! The paths on which a Go server tells its statistics.

pub(crate) const SERVER_COUNT: &str = "/sys/server_count";
pub(crate) const SERVER_MEASURE: &str = "/sys/server_measure";
pub(crate) const PATH_COUNT: &str = "/sys/path_count";
pub(crate) const PATH_MEASURE: &str = "/sys/path_measure";
pub(crate) const STATIS: &str = "/sys/statis";
pub(crate) const CONNECTION_STATIS: &str = "/sys/connection_statis";
pub(crate) const PATHS: [&str; 6] = [
    SERVER_COUNT,
    SERVER_MEASURE,
    PATH_COUNT,
    PATH_MEASURE,
    STATIS,
    CONNECTION_STATIS,
];
