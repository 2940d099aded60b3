//! Single files, in both directions.

use std::fs;

use crate::common::{MIB, Pair, content, names, within};

#[tokio::test]
async fn files_of_every_size_around_the_bounds_of_pieces_and_chunks_make_the_round_trip() {
    let pair = Pair::new().await;
    let files = pair.files();
    let mut sizes = vec![0, 1, 1000, 64 * 1024, 256 * 1024, 5 * MIB + 12_345];
    for bound in [256 * 1024, MIB, 2 * MIB, 3 * MIB, 4 * MIB] {
        sizes.extend([bound - 1, bound, bound + 1]);
    }
    for size in sizes {
        let content = content(size);
        let (source, target) = (pair.local.join("source"), pair.local.join("target"));
        fs::write(&source, &content).unwrap();
        let sent = within("a put", files.put(&source, "file")).await.unwrap();
        assert!(
            fs::read(pair.served.join("file")).unwrap() == content,
            "{size}"
        );
        let fetched = within("a get", files.get("file", &target)).await.unwrap();
        assert!(fs::read(&target).unwrap() == content, "{size}");
        let hash = blake3::hash(&content);
        for report in [sent, fetched] {
            assert_eq!(report.hash.unwrap().as_bytes(), hash.as_bytes(), "{size}");
            let counts = (report.files, report.bytes, report.transferred);
            assert_eq!(counts, (1, size as u64, size as u64));
        }
        let modified = |path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(&source), modified(&target), "{size}");
    }
    assert_eq!(pair.names(), ["file"]);
    assert_eq!(names(&pair.local), ["source", "target"]);
}
