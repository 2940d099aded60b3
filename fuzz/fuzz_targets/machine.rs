//! A pair of machines against a model, or one machine against a hostile peer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_core::__fuzz_machine(data));
