//! Values of many types from any bytes, in postcard.

#![no_main]

use iip_rpc::codec::CodecId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::codec(CodecId::POSTCARD, data));
