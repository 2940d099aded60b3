//! Frames from any bytes, split anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::decoder(data));
