//! Evidence as contracts on Sui take it in, in the form of Mysten Labs' Nautilus.
//!
//! A contract registers an enclave once, by a Nitro attestation document whose
//! `public_key` is an Ed25519 key of that process (`sui::nitro_attestation`); from then
//! on it believes what that key signs. Signed is an intent message in BCS:
//! `intent (u8) ‖ timestamp in ms (u64, little endian) ‖ payload`.
//!
//! Our payload says with which TLS key the node of which quorum serves, so that a
//! contract can pin what clients outside the chain should see. The chain verifies
//! Nitro's documents alone; nodes in other TEEs answer in the same form, for clients
//! that verify their evidence themselves: its report data is
//! [`crate::sui_report_data`].

/// The intent of [`ServingKey`]; others would say other things with the same key.
pub const SERVING_KEY_INTENT: u8 = 0;

/// The payload. In Move: `struct ServingKey { cluster: String, nonce: String,
/// serving_key_sha256: String }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingKey {
    /// The quorum's name.
    pub cluster: String,
    /// The asker's nonce, lower-case hex.
    pub nonce: String,
    /// SHA-256 of the DER SubjectPublicKeyInfo with which the node serves, hex.
    pub serving_key_sha256: String,
}

impl ServingKey {
    /// The bytes to sign, said at `timestamp_ms` since the epoch.
    pub fn intent_message(&self, timestamp_ms: u64) -> Vec<u8> {
        let mut bytes = vec![SERVING_KEY_INTENT];
        bytes.extend_from_slice(&timestamp_ms.to_le_bytes());
        for text in [&self.cluster, &self.nonce, &self.serving_key_sha256] {
            write_length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

/// A length as BCS has it: ULEB128.
fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_message_is_bcs() {
        let payload = ServingKey {
            cluster: "q".to_owned(),
            nonce: "00ff".to_owned(),
            serving_key_sha256: "a".repeat(200),
        };
        let mut expected = vec![0];
        // 1,744,038,900,000 in little endian.
        expected.extend([0x20, 0xb1, 0xd1, 0x10, 0x96, 0x01, 0, 0]);
        expected.extend([1, b'q', 4, b'0', b'0', b'f', b'f']);
        // 200 = 0b1_1001000.
        expected.extend([0xc8, 0x01]);
        expected.extend([b'a'; 200]);
        assert_eq!(payload.intent_message(1_744_038_900_000), expected);
    }
}
