//! Descriptions from any bytes, compared, saved, and used to read values.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::schema(data));
