//! Every kind from end to end over the stand-in: found, quoted, sealed.

use nautilus_attest_protocol::{GeneratedKey, KeyReleaseError, ReleaseRequest};
use nautilus_attest_secret::seal_to;

use super::stand_in::{Behind, StandIn, Template};
use super::*;

/// Where report data stands in quotes of version 4 and of version 3.
const TD_REPORT_DATA_AT: usize = 48 + 520;
const ENCLAVE_REPORT_DATA_AT: usize = 48 + 320;

fn tdx() -> Template {
    Template {
        quote: include_bytes!("../../fixtures/intel/tdx-v4/quote.bin"),
        report_data_at: TD_REPORT_DATA_AT,
    }
}

fn sgx() -> Template {
    Template {
        quote: include_bytes!("../../fixtures/intel/sgx-v3/quote.bin"),
        report_data_at: ENCLAVE_REPORT_DATA_AT,
    }
}

fn machine(kernel: StandIn) -> Machine {
    Machine {
        kernel: Arc::new(kernel),
    }
}

/// Releases one key, to whoever shows evidence of the kind expected.
struct Release {
    kind: TeeKind,
    key: [u8; 32],
}

impl Release {
    fn envelope(&self, request: &ReleaseRequest<'_>) -> Result<Vec<u8>, KeyReleaseError> {
        let refused = |reason: &str| KeyReleaseError::Refused {
            service: self.name(),
            reason: reason.to_owned(),
        };
        if request.evidence.kind != self.kind {
            return Err(refused("another kind"));
        }
        let expected = nautilus_attest_protocol::binding::key_release_report_data(
            request.public_key,
            request.label,
        );
        if !request
            .evidence
            .body
            .windows(64)
            .any(|window| window == expected)
        {
            return Err(refused("evidence for another key"));
        }
        seal_to(
            request.public_key,
            nautilus_attest_protocol::KEY_RELEASE_PURPOSE,
            &self.key,
        )
        .map_err(|error| refused(&error.to_string()))
    }
}

impl KeyRelease for Release {
    fn name(&self) -> String {
        "the test's service".to_owned()
    }

    fn generate(&self, request: &ReleaseRequest<'_>) -> Result<GeneratedKey, KeyReleaseError> {
        Ok(GeneratedKey {
            kept: b"number 1".to_vec(),
            envelope: self.envelope(request)?,
        })
    }

    fn release(
        &self,
        kept: &[u8],
        request: &ReleaseRequest<'_>,
    ) -> Result<Vec<u8>, KeyReleaseError> {
        assert_eq!(kept, b"number 1");
        self.envelope(request)
    }
}

fn with_release(kind: TeeKind) -> Companions {
    Companions {
        key_release: Some(Arc::new(Release { kind, key: [9; 32] })),
        counter: None,
    }
}

#[test]
fn the_kind_that_is_there_is_taken() {
    let snp = StandIn::with_tsm(Behind::Snp);
    let cases = [
        (machine(snp), TeeKind::Snp, "configfs-tsm"),
        (
            machine(StandIn::with_sev_guest()),
            TeeKind::Snp,
            "/dev/sev-guest",
        ),
        (
            machine(StandIn::with_tdx(tdx())),
            TeeKind::Tdx,
            "configfs-tsm",
        ),
        (machine(StandIn::with_nsm()), TeeKind::Nitro, "/dev/nsm"),
        (
            machine(StandIn::with_gramine("dcap", sgx())),
            TeeKind::Sgx,
            "/dev/attestation",
        ),
    ];
    for (machine, kind, interface) in cases {
        let detection = machine.detect();
        assert_eq!(detection.chosen, Some(kind), "{detection:?}");
        for sighting in &detection.sightings {
            if sighting.kind == kind {
                assert_eq!(sighting.interface.as_deref(), Some(interface));
                assert!(
                    sighting.measurement.is_some() && sighting.platform.is_some(),
                    "{sighting:?}"
                );
            } else {
                assert!(sighting.reason.is_some(), "{sighting:?}");
            }
        }
        let provider = machine.open(None, Companions::default()).unwrap();
        assert_eq!(provider.kind(), kind);
        let evidence = provider.quote(&[0x77; 64]).unwrap();
        assert_eq!(evidence.kind, kind);
        assert!(evidence.body.windows(64).any(|window| window == [0x77; 64]));
        assert_eq!(Evidence::decode(&evidence.encode()).unwrap(), evidence);
        // The stand-in's documents of Nitro are none.
        if kind != TeeKind::Nitro {
            let claims = read_unverified(&evidence).unwrap();
            assert_eq!(claims.measurement, provider.measurement());
            assert_eq!(claims.platform, provider.platform());
            assert_eq!(claims.report_data, [0x77; 64]);
        }
    }
}

#[test]
fn nothing_is_played_where_nothing_is() {
    let Err(error) = machine(StandIn::bare()).open(None, Companions::default()) else {
        panic!("a TEE out of nothing")
    };
    let text = error.to_string();
    for word in ["sgx: ", "nitro: ", "tdx: ", "snp: ", "/dev/nsm", "configfs"] {
        assert!(text.contains(word), "{text}");
    }
    let nsm = machine(StandIn::with_nsm());
    let Err(error) = nsm.open(Some(TeeKind::Snp), Companions::default()) else {
        panic!("another kind than was asked for")
    };
    assert!(
        error
            .to_string()
            .starts_with("a TEE of kind snp was not found: snp: "),
        "{error}"
    );
    assert_eq!(
        machine(StandIn::with_gramine("none", sgx()))
            .detect()
            .chosen,
        None
    );
}

#[test]
fn the_device_alone_measures_a_trust_domain_as_its_quote_does() {
    let kernel = StandIn::with_tdx(tdx());
    let by_device = intel::measurement_by_device(&kernel).unwrap();
    let by_quote = identity(&kernel, TeeKind::Tdx).unwrap().measurement;
    assert_eq!(by_device, by_quote);
}

#[test]
fn each_kind_seals_by_its_own_means() {
    let cases: [(fn() -> StandIn, Companions); 4] = [
        (StandIn::with_sev_guest, Companions::default()),
        (
            || StandIn::with_gramine("dcap", sgx()),
            Companions::default(),
        ),
        (|| StandIn::with_tdx(tdx()), with_release(TeeKind::Tdx)),
        (StandIn::with_nsm, with_release(TeeKind::Nitro)),
    ];
    for (kernel, companions) in cases {
        let open = || machine(kernel()).open(None, companions.clone()).unwrap();
        let sealed = open().seal("keys", b"the root").unwrap();
        assert_eq!(&**open().unseal("keys", &sealed).unwrap(), b"the root");
        assert!(matches!(
            open().unseal("token", &sealed),
            Err(SealError::Corrupt { .. })
        ));
    }
}

#[test]
fn other_code_on_the_same_chip_gets_another_key() {
    for kernel in [
        StandIn::with_sev_guest(),
        StandIn::with_gramine("dcap", sgx()),
    ] {
        let kernel = Arc::new(kernel);
        let machine = Machine {
            kernel: Arc::<StandIn>::clone(&kernel),
        };
        let provider = machine.open(None, Companions::default()).unwrap();
        let sealed = provider.seal("keys", b"the root").unwrap();
        // It claims to be what it was, and the hardware knows better.
        kernel.run_other_code();
        assert!(matches!(
            provider.unseal("keys", &sealed),
            Err(SealError::Corrupt { .. })
        ));
    }
}

#[test]
fn a_kind_without_a_key_of_its_own_says_what_it_needs() {
    let provider = machine(StandIn::with_nsm())
        .open(None, Companions::default())
        .unwrap();
    let error = provider.seal("keys", b"the root").unwrap_err();
    assert!(error.to_string().contains("attestation.tpm"), "{error}");
    // SNP's evidence comes through configfs-tsm, its keys do not.
    let without_device = machine(StandIn::with_tsm(Behind::Snp))
        .open(None, Companions::default())
        .unwrap();
    let error = without_device.seal("keys", b"the root").unwrap_err();
    assert!(error.to_string().contains("/dev/sev-guest"), "{error}");
    let kernel = StandIn::with_tsm(Behind::Snp);
    kernel.add_sev_guest();
    let with_device = machine(kernel).open(None, Companions::default()).unwrap();
    assert!(with_device.seal("keys", b"the root").is_ok());
}

#[test]
fn a_key_release_refuses_other_evidence() {
    let provider = machine(StandIn::with_nsm())
        .open(None, with_release(TeeKind::Tdx))
        .unwrap();
    let error = provider.seal("keys", b"the root").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not release the key to this code here"),
        "{error}"
    );
}
