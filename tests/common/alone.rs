//! Tests that measure the whole process (memory, CPU time, file descriptors) in a separate process:
//! the test starts its own binary again with itself as the only test, so that the measurements
//! contain no other test's work.

use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::process::Command;

use super::GUARD;

const CHILD: &str = "IIP_TEST_ALONE";

/// Runs `body` in a process that runs nothing else. `test` is the name of the calling test
/// function.
#[track_caller]
pub(crate) fn alone<F>(test: &str, body: impl FnOnce() -> F)
where
    F: Future<Output = ()>,
{
    alone_under(test, None, body);
}

/// The same, with at most `descriptors` open files in that process.
#[track_caller]
pub(crate) fn alone_under<F>(test: &str, descriptors: Option<u32>, body: impl FnOnce() -> F)
where
    F: Future<Output = ()>,
{
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let ended = runtime.block_on(async { tokio::time::timeout(GUARD * 2, body()).await });
        // A task that never yields would keep the runtime, and this process, for ever.
        runtime.shutdown_background();
        assert!(ended.is_ok(), "{test} did not end within {:?}", GUARD * 2);
        return;
    }
    let name = name_in_binary(test);
    let binary = std::env::current_exe().expect("a test binary knows itself");
    let mut command = match descriptors {
        None => Command::new(&binary),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
                .arg(&binary);
            shell
        }
    };
    let output = command
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        // With one arena, memory that the allocator keeps for short-lived threads is not measured.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("the test binary starts again");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "in a separate process:\n{said}\n{complained}"
    );
    assert!(
        said.contains("1 passed"),
        "{test} is the name of no test:\n{said}"
    );
}

/// The name of the test function `test` of the calling file, which is a module of this binary.
#[track_caller]
pub(crate) fn name_in_binary(test: &str) -> String {
    let file = Path::new(Location::caller().file());
    let module = file.file_stem().expect("a file of Rust").to_string_lossy();
    format!("{module}::{test}")
}
