//! Shamir's sharing of a secret over GF(2^8), byte by byte, with AES's polynomial.
//!
//! Any `threshold` shares give the secret; fewer say nothing of it. Multiplication uses
//! no tables and no branches on secrets.

use zeroize::Zeroizing;

/// Bytes of a secret.
pub(crate) const SECRET_BYTES: usize = 32;
/// Bytes of a share: its number from 1, then a value for each byte of the secret.
pub(crate) const SHARE_BYTES: usize = 1 + SECRET_BYTES;

/// One share.
pub(crate) type Share = Zeroizing<[u8; SHARE_BYTES]>;

/// Splits `secret` into `count` shares of which `threshold` give it back. `None` when
/// the numbers make no sense or the system gives no random bytes.
pub(crate) fn split(secret: &[u8; SECRET_BYTES], threshold: u8, count: u8) -> Option<Vec<Share>> {
    if threshold == 0 || threshold > count {
        return None;
    }
    // Coefficients above the constant one, degree by degree.
    let mut random = Zeroizing::new(vec![0; SECRET_BYTES * usize::from(threshold - 1)]);
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let shares = (1..=count).map(|x| {
        let mut share = Zeroizing::new([0; SHARE_BYTES]);
        share[0] = x;
        for at in 0..SECRET_BYTES {
            let higher = random.iter().skip(at).step_by(SECRET_BYTES);
            let value = higher
                .rev()
                .fold(0, |sum, coefficient| multiply(sum ^ coefficient, x));
            share[1 + at] = value ^ secret[at];
        }
        share
    });
    Some(shares.collect())
}

/// The secret of these shares, which must be as many as its threshold and have
/// different numbers; otherwise it is some other value.
pub(crate) fn combine(shares: &[Share]) -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    for share in shares {
        // Lagrange's weight at 0: the product of x_j / (x_j - x_i).
        let weight = shares
            .iter()
            .map(|other| other[0])
            .filter(|other| *other != share[0])
            .fold(1, |weight, other| {
                multiply(weight, multiply(other, invert(other ^ share[0])))
            });
        for at in 0..SECRET_BYTES {
            secret[at] ^= multiply(share[1 + at], weight);
        }
    }
    secret
}

fn multiply(left: u8, right: u8) -> u8 {
    /// x^8 + x^4 + x^3 + x + 1.
    const REDUCTION: u8 = 0x1b;
    let (mut product, mut left) = (0, left);
    for bit in 0..8 {
        product ^= left & 0_u8.wrapping_sub((right >> bit) & 1);
        let carry = 0_u8.wrapping_sub(left >> 7);
        left = (left << 1) ^ (REDUCTION & carry);
    }
    product
}

/// x^254, which is 1/x.
fn invert(x: u8) -> u8 {
    let mut power = x;
    let mut inverse = 1;
    for _ in 0..7 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_element_has_its_inverse() {
        assert_eq!(multiply(0x57, 0x83), 0xc1); // the example of FIPS 197, 4.2
        assert!((1..=u8::MAX).all(|x| multiply(x, invert(x)) == 1));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        assert!(split(&[0; SECRET_BYTES], 0, 3).is_none());
        assert!(split(&[0; SECRET_BYTES], 4, 3).is_none());
    }

    #[test]
    fn a_secret_split_twice_has_other_shares() {
        let [one, other] = [(); 2].map(|()| split(&[7; SECRET_BYTES], 2, 2).expect("split"));
        assert_ne!(*one[0], *other[0]);
    }

    /// A secret, numbers that make sense, and the order in which shares come.
    fn cases() -> impl Strategy<Value = ([u8; SECRET_BYTES], u8, Vec<usize>)> {
        (1_u8..=9).prop_flat_map(|count| {
            let order = Just((0..usize::from(count)).collect::<Vec<_>>()).prop_shuffle();
            (any::<[u8; SECRET_BYTES]>(), 1..=count, order)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_threshold_of_shares_gives_the_secret((secret, threshold, order) in cases()) {
            let shares = split(&secret, threshold, order.len() as u8).expect("split");
            let some: Vec<Share> = order[..usize::from(threshold)]
                .iter()
                .map(|at| shares[*at].clone())
                .collect();
            prop_assert_eq!(*combine(&some), secret);
        }

        /// With one share less every secret is possible, each by exactly one value of the
        /// share that is missing.
        #[test]
        fn one_share_less_tells_nothing((secret, threshold, order) in cases()) {
            let shares = split(&secret, threshold, order.len() as u8).expect("split");
            let last = usize::from(threshold) - 1;
            let mut some: Vec<Share> = order[..=last].iter().map(|at| shares[*at].clone()).collect();
            let mut possible = std::collections::BTreeSet::new();
            for value in 0..=u8::MAX {
                some[last][1] = value;
                possible.insert(combine(&some)[0]);
            }
            prop_assert_eq!(possible.len(), 256);
        }
    }
}
