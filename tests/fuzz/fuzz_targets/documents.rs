//! What `shoal_tests::fuzz::documents` tries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shoal_tests::fuzz::documents(data));
