//! Heads of requests and answers from any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::envelope(data));
