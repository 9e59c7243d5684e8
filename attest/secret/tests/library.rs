//! Where the cryptographic library's copies of keys lie, seen as a dump sees it: the
//! mappings of this process, told apart by whether the kernel would dump them.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use nautilus_attest_secret::{Secret, protect_cryptographic_library};

/// Readable and writable mappings, and whether they are left out of dumps.
fn mappings() -> Vec<(u64, u64, bool)> {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("the own mappings");
    let mut found = Vec::new();
    let mut present = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            let writable = words.next().is_some_and(|rights| rights.starts_with("rw"));
            present = writable.then_some((start, end));
        } else if first == "VmFlags:"
            && let Some((start, end)) = present.take()
        {
            found.push((start, end, words.any(|flag| flag == "dd")));
        }
    }
    found
}

/// How often `needle` stands in mappings that are, or are not, left out of dumps. What
/// is read into the buffer is wiped before anything else is looked at.
fn count(needle: &[u8; 32], left_out: bool) -> usize {
    let mut memory = File::open("/proc/self/mem").expect("the own memory");
    let mut count = 0;
    for (start, end, is_left_out) in mappings() {
        if is_left_out != left_out || memory.seek(SeekFrom::Start(start)).is_err() {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(end - start).expect("64 bits")];
        if memory.read_exact(&mut bytes).is_ok() {
            count += bytes.windows(32).filter(|window| window == needle).count();
        }
        bytes.fill(0);
    }
    count
}

#[test]
fn the_librarys_copies_of_a_key_are_left_out_of_dumps() {
    protect_cryptographic_library().unwrap();
    assert!(protect_cryptographic_library().is_err(), "only once");
    let key = Secret::<32>::try_fill(|key| rand::fill(key)).unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).unwrap());
    assert_eq!(count(key.expose(), false), 0, "a copy would be dumped");
    // Our own, and the library's: the search finds what is there.
    assert!(count(key.expose(), true) >= 2);
    drop(cipher);
    assert_eq!(count(key.expose(), true), 1, "the library's copy is wiped");

    // Everything else works from that memory too, on many threads at once.
    let workers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..50 {
                    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
                    pair.sign(&SystemRandom::new(), b"message").unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}
