//! Bodies of sgx evidence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nautilus_attest_protocol::TeeKind;

fuzz_target!(|bytes: &[u8]| nautilus_attest_tee_fuzz::body(TeeKind::Sgx, bytes));
