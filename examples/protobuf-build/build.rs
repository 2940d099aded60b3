//! Makes `fleet.v1.rs` and `geo.v1.rs` in `OUT_DIR`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    iip_build::configure()
        // A call that waits, instead of failing after the default of 10 s.
        .method_attribute(".fleet.v1.Fleet.Acquire", "#[rpc(timeout = \"8760h\")]")
        .compile_protos(&["proto/fleet/v1/fleet.proto"], &["proto"])?;
    Ok(())
}
