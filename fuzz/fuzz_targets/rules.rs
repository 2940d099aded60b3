//! Rules from any text, loaded and evaluated.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::rules(data));
