//! Which TEE this machine has, and why not the others.

use std::fmt::Write as _;

use nautilus_attest_protocol::{Measurement, TeeKind};

use super::kernel::Kernel;
use super::{HardwareError, identity, intel, nitro, snp, tsm};

/// The kinds looked for, in the order of preference: an enclave inside a confidential
/// machine is the smaller thing to trust.
const KINDS: [TeeKind; 4] = [TeeKind::Sgx, TeeKind::Nitro, TeeKind::Tdx, TeeKind::Snp];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Each kind, in the order of preference.
    pub sightings: Vec<Sighting>,
    /// The kind that `provider = "auto"` takes.
    pub chosen: Option<TeeKind>,
}

/// One kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Which.
    pub kind: TeeKind,
    /// The interface it was found by.
    pub interface: Option<String>,
    /// What its evidence names, where it could be read.
    pub measurement: Option<Measurement>,
    /// Its platform, lower-case hex, where it could be read.
    pub platform: Option<String>,
    /// Why it is not there, or why it does not answer.
    pub reason: Option<String>,
}

pub(super) fn detect(kernel: &dyn Kernel) -> Detection {
    let sightings: Vec<_> = look(kernel)
        .into_iter()
        .map(|(kind, found)| sighting(kernel, kind, found))
        .collect();
    let chosen = sightings
        .iter()
        .find(|sighting| sighting.interface.is_some())
        .map(|sighting| sighting.kind);
    Detection { sightings, chosen }
}

fn sighting(kernel: &dyn Kernel, kind: TeeKind, found: Result<String, String>) -> Sighting {
    let mut sighting = Sighting {
        kind,
        interface: None,
        measurement: None,
        platform: None,
        reason: None,
    };
    match found {
        Err(reason) => sighting.reason = Some(reason),
        Ok(interface) => {
            sighting.interface = Some(interface);
            match identity(kernel, kind) {
                Ok(identity) => {
                    sighting.measurement = Some(identity.measurement);
                    sighting.platform = Some(identity.platform);
                }
                Err(reason) => {
                    sighting.reason = Some(reason);
                    if kind == TeeKind::Tdx {
                        sighting.measurement = intel::measurement_by_device(kernel).ok();
                    }
                }
            }
        }
    }
    sighting
}

/// The kind asked for, if it is there; else the first that is.
pub(super) fn choose(
    kernel: &dyn Kernel,
    wanted: Option<TeeKind>,
) -> Result<TeeKind, HardwareError> {
    let mut reasons = String::new();
    for (kind, found) in look(kernel) {
        if wanted.is_some_and(|wanted| wanted != kind) {
            continue;
        }
        match found {
            Ok(_) => return Ok(kind),
            Err(reason) => {
                let between = if reasons.is_empty() { "" } else { "; " };
                let written = write!(reasons, "{between}{kind}: {reason}");
                assert!(written.is_ok(), "writing to memory cannot fail");
            }
        }
    }
    Err(HardwareError::NotFound {
        wanted: wanted.map_or_else(
            || "a hardware TEE".to_owned(),
            |kind| format!("a TEE of kind {kind}"),
        ),
        reasons,
    })
}

/// Each kind: by which interface it is there, or why it is not.
fn look(kernel: &dyn Kernel) -> [(TeeKind, Result<String, String>); 4] {
    let tsm = tsm::provider(kernel);
    KINDS.map(|kind| {
        let found = match kind {
            TeeKind::Sgx => intel::look_for_sgx(kernel),
            TeeKind::Nitro => nitro::look(kernel),
            TeeKind::Tdx => intel::look_for_tdx(kernel, &tsm),
            TeeKind::Snp => snp::look(kernel, &tsm),
            TeeKind::Simulated => Err("it is no hardware".to_owned()),
        };
        (kind, found)
    })
}
