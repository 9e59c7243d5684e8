//! How many vendors' faults a quorum is to bear.
//!
//! A vendor whose TEEs turn out broken lends its nodes to whoever broke them. As long
//! as the nodes of the vendors at fault are fewer than a majority, they can neither
//! elect nor commit by themselves.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::TeeKind;
use crate::refused::Refused;

/// Who answers for a kind of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// Nobody: a process that plays a TEE.
    Nobody,
    /// AWS: Nitro Enclaves.
    Aws,
    /// AMD: SEV-SNP.
    Amd,
    /// Intel: TDX and SGX.
    Intel,
}

impl Vendor {
    /// The vendor of a kind.
    pub fn of(tee: TeeKind) -> Self {
        match tee {
            TeeKind::Simulated => Self::Nobody,
            TeeKind::Nitro => Self::Aws,
            TeeKind::Snp => Self::Amd,
            TeeKind::Tdx | TeeKind::Sgx => Self::Intel,
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Aws => "AWS",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        })
    }
}

/// The rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diversity {
    /// The nodes of so many vendors together, whichever they are, must be fewer than a
    /// majority of the voters. At least 1.
    pub vendor_faults: u32,
}

impl Diversity {
    /// Judges the voters by their kinds. A quorum of one voter has no choice and is
    /// never refused.
    ///
    /// # Errors
    /// `Diversity`.
    pub fn judge(self, voters: &[TeeKind]) -> Result<(), Refused> {
        let mut counts: BTreeMap<Vendor, usize> = BTreeMap::new();
        for tee in voters {
            *counts.entry(Vendor::of(*tee)).or_default() += 1;
        }
        let mut largest: Vec<(usize, Vendor)> =
            counts.into_iter().map(|(vendor, n)| (n, vendor)).collect();
        largest.sort_by_key(|&(count, vendor)| (std::cmp::Reverse(count), vendor));
        largest.truncate(usize::try_from(self.vendor_faults).unwrap_or(usize::MAX));
        let nodes: usize = largest.iter().map(|(count, _)| count).sum();
        let majority = voters.len() / 2 + 1;
        if voters.len() <= 1 || nodes < majority {
            return Ok(());
        }
        Err(Refused::Diversity {
            vendors: largest
                .iter()
                .map(|(_, vendor)| vendor.to_string())
                .collect(),
            nodes,
            voters: voters.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use TeeKind::{Nitro, Sgx, Snp, Tdx};

    fn judge(vendor_faults: u32, voters: &[TeeKind]) -> bool {
        Diversity { vendor_faults }.judge(voters).is_ok()
    }

    #[test]
    fn one_vendor_may_not_hold_a_majority() {
        assert!(judge(1, &[Snp, Tdx, Nitro]));
        assert!(!judge(1, &[Snp, Snp, Nitro]));
        assert!(judge(1, &[Snp, Snp, Tdx, Tdx, Nitro]));
        assert!(!judge(1, &[Snp, Snp, Snp, Tdx, Nitro]));
    }

    #[test]
    fn tdx_and_sgx_are_one_vendors() {
        assert!(!judge(1, &[Tdx, Sgx, Nitro]));
    }

    #[test]
    fn a_quorum_grows_from_one_voter_to_three_without_a_refusal() {
        assert!(judge(1, &[Snp]));
        assert!(judge(1, &[Snp, Tdx]));
        assert!(judge(1, &[Snp, Tdx, Nitro]));
        assert!(!judge(1, &[Snp, Snp]));
    }

    #[test]
    fn two_vendors_together_are_counted_where_two_faults_are_to_be_borne() {
        assert!(!judge(2, &[Snp, Tdx, Nitro]));
        let refused = Diversity { vendor_faults: 2 }
            .judge(&[Snp, Tdx, Nitro])
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the nodes of AWS and AMD would be 2 of 3 voters, a majority; the policy's diversity forbids it"
        );
    }
}
