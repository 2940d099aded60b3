//! Memory and open files of a process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::BoxError;

/// Returns the resident memory of process `pid` in KiB, counted page by page: the number in
/// `status` is off by up to some hundred KiB.
///
/// # Errors
/// An error if there is no such process, or if it belongs to another user.
pub fn resident_kib(pid: u32) -> Result<u64, BoxError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    Ok(rss(&rollup).ok_or_else(|| format!("{path}: not understood"))?)
}

fn rss(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// Returns the number of open files and sockets of process `pid`.
///
/// # Errors
/// An error if there is no such process, or if it belongs to another user.
pub fn open_files(pid: u32) -> Result<usize, BoxError> {
    let path = format!("/proc/{pid}/fd");
    let files = std::fs::read_dir(&path).map_err(|e| format!("{path}: {e}"))?;
    Ok(files.count())
}

/// Raises the limit of open files of this process to its maximum.
///
/// # Errors
/// An error of the system call.
pub fn raise_file_limit() -> Result<(), BoxError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Checks that this process, and a server with the same limit, can open `connections` sockets.
///
/// # Errors
/// The error explains how to raise the limit.
pub fn check_file_limit(connections: usize) -> Result<(), BoxError> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = connections as u64 + OTHER_FILES;
    if soft < needed {
        return Err(format!(
            "{connections} connections need {needed} open files, the limit is {soft}: raise it with ulimit -n {needed}"
        )
        .into());
    }
    Ok(())
}

/// Number of files that a runtime and the terminal have open.
const OTHER_FILES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found_among_the_other_lines() {
        let rollup =
            "5600-7fff ---p 0 00:00 0  [rollup]\nRss:        1234 kB\nPss:         999 kB\n";
        assert_eq!(rss(rollup), Some(1234));
        assert_eq!(rss("Pss: 999 kB\n"), None);
    }

    #[test]
    fn a_file_that_is_opened_counts() {
        let pid = std::process::id();
        // Other tests open files at the same time, but never this many.
        let before = open_files(pid).expect("proc is mounted");
        let held: Vec<_> = (0..100)
            .map(|_| std::fs::File::open("/dev/null").expect("there is /dev/null"))
            .collect();
        let after = open_files(pid).expect("proc is mounted");
        assert!(after >= before + held.len() / 2, "{before}, then {after}");
    }

    #[test]
    fn the_error_of_too_many_connections_says_what_to_do() {
        let error = check_file_limit(usize::MAX / 2).expect_err("more than any limit");
        assert!(error.to_string().contains("ulimit"), "{error}");
        check_file_limit(1).expect("one is fine");
    }
}
