//! Where endorsements come from: AMD's key distribution service, Intel's provisioning
//! certification service, or something in front of them that speaks the same.
//!
//! Sources: AMD 57230 (VCEK certificate and KDS interface), chapters 4 and 5; Intel PCS API
//! v4.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nautilus_attest_protocol::TeeKind;
use nautilus_client::provider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::row::MAX_ENDORSEMENT_BYTES;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// AMD's own service.
const AMD_KDS: &str = "https://kdsintf.amd.com";
/// Intel's own service.
const INTEL_PCS: &str = "https://api.trustedservices.intel.com";
/// Where Intel serves the root's revocation list, which its service does not.
const INTEL_ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";
/// The system's certificate authorities, unless `SSL_CERT_FILE` names others.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources {
    /// Speaks as `kdsintf.amd.com` does.
    pub(crate) amd_kds: Option<String>,
    /// Speaks as `api.trustedservices.intel.com` does.
    pub(crate) intel_pcs: Option<String>,
}

impl Sources {
    /// With the vendor's own address where the node's hardware needs it and nobody
    /// named another.
    #[must_use]
    pub(crate) fn or_of_hardware(mut self, kind: TeeKind) -> Self {
        match kind {
            TeeKind::Snp => {
                self.amd_kds.get_or_insert_with(|| AMD_KDS.to_owned());
            }
            TeeKind::Tdx | TeeKind::Sgx => {
                self.intel_pcs.get_or_insert_with(|| INTEL_PCS.to_owned());
            }
            TeeKind::Simulated | TeeKind::Nitro => {}
        }
        self
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.amd_kds.is_none() && self.intel_pcs.is_none()
    }

    /// How an endorsement is asked for; `None` without a source, or for a name that
    /// no source has.
    fn request(&self, name: &str) -> Option<Asked> {
        let parts: Vec<&str> = name.split('/').collect();
        match *parts.first()? {
            "amd" => amd(self.amd_kds.as_deref()?, &parts[1..]),
            "intel" => intel(self.intel_pcs.as_deref()?, &parts[1..]),
            _ => None,
        }
    }
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    url: String,
    /// The answer's header with the issuer's chain, URL-encoded PEM, which goes behind
    /// the body.
    chain_header: Option<&'static str>,
    /// The body is hex.
    is_hex: bool,
}

impl Asked {
    fn body(url: String) -> Self {
        Self {
            url,
            chain_header: None,
            is_hex: false,
        }
    }
}

fn product_title(product: &str) -> Option<&'static str> {
    match product {
        "milan" => Some("Milan"),
        "genoa" => Some("Genoa"),
        "turin" => Some("Turin"),
        _ => None,
    }
}

fn amd(base: &str, parts: &[&str]) -> Option<Asked> {
    let url = match parts {
        ["chain", key @ ("vcek" | "vlek"), product] => {
            format!("{base}/{key}/v1/{}/cert_chain", product_title(product)?)
        }
        ["crl", product] => format!("{base}/vcek/v1/{}/crl", product_title(product)?),
        ["vcek", product, chip, tcb] => {
            let title = product_title(product)?;
            let tcb: [u8; 8] = hex::decode(tcb).ok()?.try_into().ok()?;
            // The bytes as they stand in the report (AMD 56860, TCB_VERSION).
            let components = if *product == "turin" {
                let [fmc, bootloader, tee, snp, _, _, _, microcode] = tcb;
                format!(
                    "fmcSPL={fmc}&blSPL={bootloader}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={microcode}"
                )
            } else {
                let [bootloader, tee, _, _, _, _, snp, microcode] = tcb;
                format!("blSPL={bootloader}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={microcode}")
            };
            if !chip.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            format!("{base}/vcek/v1/{title}/{chip}?{components}")
        }
        // A loaded key's certificate comes from the cloud provider, with the report.
        _ => return None,
    };
    Some(Asked::body(url))
}

fn intel(base: &str, parts: &[&str]) -> Option<Asked> {
    match parts {
        ["tcb", kind @ ("sgx" | "tdx"), fmspc]
            if fmspc.len() == 12 && fmspc.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Some(Asked {
                url: format!("{base}/{kind}/certification/v4/tcb?fmspc={fmspc}"),
                chain_header: Some("tcb-info-issuer-chain"),
                is_hex: false,
            })
        }
        ["qe", kind @ ("sgx" | "tdx")] => Some(Asked {
            url: format!("{base}/{kind}/certification/v4/qe/identity"),
            chain_header: Some("sgx-enclave-identity-issuer-chain"),
            is_hex: false,
        }),
        ["crl", authority @ ("processor" | "platform")] => Some(Asked::body(format!(
            "{base}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der"
        ))),
        ["crl", "root"] if base == INTEL_PCS => Some(Asked::body(INTEL_ROOT_CRL.to_owned())),
        // What caches in front of Intel's service have for it, in hex.
        ["crl", "root"] => Some(Asked {
            url: format!("{base}/sgx/certification/v4/rootcacrl"),
            chain_header: None,
            is_hex: true,
        }),
        _ => None,
    }
}

/// Fetches.
pub(super) struct Fetcher {
    sources: Sources,
    http: reqwest::Client,
}

/// What was fetched, and whence.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) url: String,
}

impl Fetcher {
    /// Over TLS under the system's authorities; vendors' signatures are checked besides.
    pub(super) fn new(sources: Sources) -> anyhow::Result<Self> {
        let path =
            std::env::var_os("SSL_CERT_FILE").map_or_else(|| AUTHORITIES.into(), PathBuf::from);
        let mut roots = rustls::RootCertStore::empty();
        if let Ok(certificates) = CertificateDer::pem_file_iter(&path) {
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("set up HTTP")?;
        Ok(Self { sources, http })
    }

    /// Whether a source has endorsements of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.sources.request(name).is_some()
    }

    /// Asks the source. What it says is not believed yet.
    pub(super) async fn fetch(&self, name: &str) -> anyhow::Result<Fetched> {
        let asked = self
            .sources
            .request(name)
            .with_context(|| format!("no source is configured that has {name}"))?;
        let mut answer = self.http.get(&asked.url).send().await?;
        if !answer.status().is_success() {
            bail!("{} answered {}", asked.url, answer.status());
        }
        let chain = match asked.chain_header {
            Some(header) => {
                let value = answer.headers().get(header);
                let value = value
                    .and_then(|value| value.to_str().ok())
                    .with_context(|| format!("{} gave no {header}", asked.url))?;
                url_decoded(value).ok_or_else(|| anyhow!("{header} is not URL-encoded"))?
            }
            None => Vec::new(),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            if bytes.len() + piece.len() + chain.len() > MAX_ENDORSEMENT_BYTES {
                bail!("{} gave more than {MAX_ENDORSEMENT_BYTES} bytes", asked.url);
            }
            bytes.extend_from_slice(&piece);
        }
        if asked.is_hex {
            let text = bytes.trim_ascii();
            bytes = hex::decode(text).with_context(|| format!("{} gave no hex", asked.url))?;
        }
        bytes.extend_from_slice(&chain);
        Ok(Fetched {
            bytes,
            url: asked.url,
        })
    }
}

/// Undoes percent-encoding (RFC 3986).
fn url_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.extend(hex::decode(digits).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources {
            amd_kds: Some("http://amd".to_owned()),
            intel_pcs: Some("http://intel".to_owned()),
        }
    }

    #[test]
    fn every_name_has_its_address() {
        for (name, url) in [
            ("amd/crl/milan", "http://amd/vcek/v1/Milan/crl"),
            (
                "amd/chain/vlek/genoa",
                "http://amd/vlek/v1/Genoa/cert_chain",
            ),
            (
                "amd/vcek/milan/ab01/03000000000008d1",
                "http://amd/vcek/v1/Milan/ab01?blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=209",
            ),
            (
                "amd/vcek/turin/ab01/0102030400000005",
                "http://amd/vcek/v1/Turin/ab01?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=5",
            ),
            (
                "intel/tcb/tdx/b0c06f000000",
                "http://intel/tdx/certification/v4/tcb?fmspc=b0c06f000000",
            ),
            (
                "intel/qe/sgx",
                "http://intel/sgx/certification/v4/qe/identity",
            ),
            (
                "intel/crl/platform",
                "http://intel/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
            ),
            (
                "intel/crl/root",
                "http://intel/sgx/certification/v4/rootcacrl",
            ),
        ] {
            let asked = sources().request(name).expect(name);
            assert_eq!(asked.url, url);
        }
    }

    #[test]
    fn what_no_source_has_is_not_asked_for() {
        for name in [
            "",
            "amd",
            "amd/crl/rome",
            "amd/vcek/milan/../../x/03000000000008d1",
            "amd/vcek/milan/ab/03",
            "amd/vlek/milan/ab01/03000000000008d1",
            "intel/tcb/tdx/b0c0",
            "intel/crl/other",
            "nitro/root",
        ] {
            assert_eq!(sources().request(name), None, "{name}");
        }
        assert_eq!(Sources::default().request("amd/crl/milan"), None);
    }

    #[test]
    fn only_hardware_names_its_vendor() {
        let none = Sources::default();
        assert!(none.clone().or_of_hardware(TeeKind::Simulated).is_empty());
        assert!(none.clone().or_of_hardware(TeeKind::Nitro).is_empty());
        let snp = none.or_of_hardware(TeeKind::Snp);
        assert_eq!(
            (snp.amd_kds.as_deref(), snp.intel_pcs),
            (Some(AMD_KDS), None)
        );
        let tdx = sources().or_of_hardware(TeeKind::Tdx);
        assert_eq!(tdx, sources(), "what was named stands");
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(url_decoded("a%20b%0A+").as_deref(), Some(&b"a b\n+"[..]));
        assert_eq!(url_decoded("%2"), None);
        assert_eq!(url_decoded("%zz"), None);
    }
}
