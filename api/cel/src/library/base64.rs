//! Base64 as schemas' `byte` format has it: the standard alphabet, padded, line ends
//! passed over.

use std::sync::Arc;

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

/// The text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of text, if it is base64.
pub(crate) fn decode(text: &str) -> Option<Arc<[u8]>> {
    let clean: Vec<u8> = text
        .bytes()
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    STANDARD.decode(clean).ok().map(Arc::from)
}
