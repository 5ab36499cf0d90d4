//! What `shoal_tests::fuzz::api` tries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shoal_tests::fuzz::api(data));
