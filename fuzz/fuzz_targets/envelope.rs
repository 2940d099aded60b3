//! Heads of requests and replies from any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::envelope(data));
