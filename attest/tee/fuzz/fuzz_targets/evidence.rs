//! Encoded evidence of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| nautilus_attest_tee_fuzz::evidence(bytes));
