//! Messages of many kinds from any bytes, in protobuf.

#![no_main]

use iip_rpc::codec::CodecId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iip_fuzz::codec(CodecId::PROTOBUF, data));
