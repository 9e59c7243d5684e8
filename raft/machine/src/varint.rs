//! Numbers in as few bytes as they need: seven bits a byte, least significant first,
//! the top bit set on all but the last byte.
//!
//! Invariant: a number is read back as it was written; bytes that end too early or
//! say more than 64 bits are no number.

/// The most bytes of one number.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Appends a number.
pub(crate) fn push(bytes: &mut Vec<u8>, number: u64) {
    let mut buffer = [0; VARINT_BYTES_MAX];
    let length = write(&mut buffer, number);
    bytes.extend_from_slice(&buffer[..length]);
}

/// Writes a number to the front of `buffer`, which has room for it; gives its length.
pub(crate) fn write(buffer: &mut [u8], mut number: u64) -> usize {
    let mut length = 0;
    while number >= 0x80 {
        buffer[length] = (number as u8 & 0x7f) | 0x80;
        number >>= 7;
        length += 1;
    }
    buffer[length] = number as u8;
    length + 1
}

/// Reads the number that begins at `at`, and moves `at` behind it.
pub(crate) fn read(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(u64::from(first));
    }
    let mut number = u64::from(first & 0x7f);
    let mut shift = 7;
    for (read, byte) in bytes.get(*at + 1..)?.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if *byte < 0x80 {
            *at += read + 2;
            return Some(number);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        let numbers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, u64::MAX >> bit]);
        numbers.clone().for_each(|number| push(&mut bytes, number));
        let mut at = 0;
        for number in numbers {
            assert_eq!(read(&bytes, &mut at), Some(number));
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn bytes_that_end_too_early_or_say_too_much_are_no_number() {
        assert_eq!(read(&[], &mut 0), None);
        assert_eq!(read(&[0x80, 0x80], &mut 0), None);
        assert_eq!(read(&[0xff; 11], &mut 0), None);
        let mut too_large = [0x80; 10];
        too_large[9] = 2;
        assert_eq!(read(&too_large, &mut 0), None);
    }
}
