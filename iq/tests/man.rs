//! `iq man`.

use std::fs;

use crate::common::Home;

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let home = Home::new();
    let folder = home.0.join("man1");
    let ran = home.iq(&["man", folder.to_str().unwrap(), "--quiet"]).await;
    assert_eq!(ran.data(), "");
    for page in [
        "iq.1",
        "iq-call.1",
        "iq-schema-check.1",
        "iq-gen-openapi.1",
        "iq-health.1",
    ] {
        let text = fs::read_to_string(folder.join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
        for wanted in [
            "Exit codes: ",
            "IQ_CONFIG",
            concat!("iq ", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(text.contains(wanted), "{page}: {wanted}");
        }
    }
}
