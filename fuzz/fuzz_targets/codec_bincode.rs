//! Values of many types from any bytes, in bincode.

#![no_main]

use iip_rpc::codec::CodecId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::codec(CodecId::BINCODE, data));
