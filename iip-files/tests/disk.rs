//! Disks that are full or slow. These tests run in separate processes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iip_files::{Folder, TransferOptions};
use iip_rpc::Code;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::common::{ALONE, MIB, Pair, content, names, within};

/// Runs a test in a separate process, after some shell commands.
fn alone(test: &str, commands: &str, folder: &Path) {
    let script = format!("{commands} exec \"$0\" --exact {test} --nocapture");
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().unwrap());
    let output = shell.env(ALONE, folder).output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_full_disk_keeps_what_has_arrived_and_names_the_file() {
    let size = 5 * MIB + 1;
    let (put, get) = ("inbox/file", "target");
    if let Some(folder) = std::env::var_os(ALONE) {
        // In this process, files are limited to 3 MiB. Writes beyond that fail if the signal is
        // handled.
        let _handled = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
        let pair = Pair::within(Path::new(&folder), |folder| folder.writable(true)).await;
        let status = pair
            .files()
            .put(pair.local.join("source"), put)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("inbox/file"), "{status}");
        let target = pair.local.join(get);
        let status = pair.files().get("original", &target).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("target"), "{status}");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let pair = Pair::within(temp.path(), |folder| folder.writable(true)).await;
    let source = pair.local.join("source");
    fs::write(&source, content(size)).unwrap();
    fs::write(pair.served.join("original"), content(size)).unwrap();
    // The limit is in blocks of 512 bytes.
    let commands = "ulimit -f 6144;";
    alone(
        "disk::a_full_disk_keeps_what_has_arrived_and_names_the_file",
        commands,
        temp.path(),
    );

    let target = pair.local.join(get);
    let reports = [
        pair.files().put(&source, put).await.unwrap(),
        pair.files().get("original", &target).await.unwrap(),
    ];
    for report in reports {
        assert_eq!(report.transferred, (size - 3 * MIB) as u64);
    }
    assert!(fs::read(pair.served.join(put)).unwrap() == content(size));
    assert!(fs::read(target).unwrap() == content(size));
    assert_eq!(names(&pair.local), ["source", "target"]);
}

#[test]
fn a_slow_receiver_does_not_fill_the_memory_of_either_side() {
    let Some(folder) = std::env::var_os(ALONE) else {
        let temp = tempfile::tempdir().unwrap();
        let test = "disk::a_slow_receiver_does_not_fill_the_memory_of_either_side";
        return alone(test, "", temp.path());
    };
    let size = 1 << 30;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grown = runtime.block_on(async {
        let slow = |folder: Folder| folder.writable(true).bytes_per_second(256 * 1024);
        let pair = Pair::within(Path::new(&folder), slow).await;
        // A sparse file, which takes no space on the disk.
        let source = pair.local.join("source");
        File::create(&source).unwrap().set_len(size).unwrap();
        let before = status_bytes("VmRSS:");
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, files) = (Arc::clone(&sent), pair.files());
        let options = TransferOptions::new().progress(move |progress| {
            counter.store(progress.sent, Ordering::SeqCst);
        });
        let files = files.with_options(options);
        let put = tokio::spawn(async move { files.put(&source, "file").await });
        // All buffers are full once hardly anything is sent for a while.
        within("full buffers", async {
            loop {
                let before = sent.load(Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                if before > 0 && sent.load(Ordering::SeqCst) <= before + 512 * 1024 {
                    return;
                }
            }
        })
        .await;
        put.abort();
        status_bytes("VmHWM:").saturating_sub(before)
    });
    assert!(grown < 40 * MIB, "grown by {} KiB", grown / 1024);
}

/// Returns a size from `/proc/self/status`, in bytes.
fn status_bytes(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}
