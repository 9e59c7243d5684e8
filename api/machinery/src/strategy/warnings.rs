//! Warnings: what a client is told about an object that is accepted.
//!
//! Invariant: at most [`MAX_WARNINGS`] are kept, as a response's headers are bounded.

use std::net::IpAddr;

use crate::validation::At;
use crate::validation::common::{canonical_ip, masked, parse_cidr, parse_ip};

/// Most warnings told about one request.
pub const MAX_WARNINGS: usize = 64;

/// The warnings so far, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Warnings {
    texts: Vec<String>,
}

impl Warnings {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The texts.
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// A warning about the whole request.
    pub fn push(&mut self, text: String) {
        if self.texts.len() < MAX_WARNINGS {
            self.texts.push(text);
        }
    }

    /// A warning about one place.
    pub fn add(&mut self, at: &At<'_>, why: &str) {
        self.push(format!("{}: {why}", at.path()));
    }

    /// Of an address that is not written as one would.
    pub fn address(&mut self, at: &At<'_>) {
        let text = at.text();
        let Some(address) = parse_ip(text) else {
            return;
        };
        let canonical = canonical_ip(address);
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
                if v6.to_string() != text {
                    let why = format!(
                        "IPv6 address \"{text}\" should be in RFC 5952 canonical format \
                         (\"{canonical}\")"
                    );
                    self.add(at, &why);
                }
            }
            Ok(IpAddr::V4(_)) => {}
            _ => {
                let why =
                    format!("non-standard IP address \"{text}\" is invalid: use \"{canonical}\"");
                self.add(at, &why);
            }
        }
    }

    /// Of a network that is not written as one would.
    pub fn network(&mut self, at: &At<'_>) {
        let text = at.text();
        let Some((address, length)) = parse_cidr(text) else {
            return;
        };
        let base = masked(address, length);
        if base != address {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let why = format!(
                "CIDR value \"{text}\" is ambiguous in this context (should be \"{}/{length}\" or \
                 \"{}/{most}\"?)",
                canonical_ip(base),
                canonical_ip(address)
            );
            self.add(at, &why);
            return;
        }
        let canonical = format!("{}/{length}", canonical_ip(base));
        if address.is_ipv6() && canonical != text {
            let why = format!(
                "IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format \
                 (\"{canonical}\")"
            );
            self.add(at, &why);
        }
    }
}

/// What to use in place of a label of nodes, if it is an old one.
pub fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Of amounts of bytes that are no whole bytes.
pub fn fraction_of_byte(list: &At<'_>, warnings: &mut Warnings) {
    for name in ["memory", "ephemeral-storage"] {
        fraction(&list.key(name), warnings);
    }
}

fn fraction(at: &At<'_>, warnings: &mut Warnings) {
    // Most amounts are written without a fraction.
    if !at.text().ends_with('m') && !at.text().contains('.') {
        return;
    }
    if let Some(quantity) = at.quantity().filter(|quantity| !quantity.is_integer()) {
        let shown = quantity.canonical();
        let why = format!("fractional byte value \"{shown}\" is invalid, must be an integer");
        warnings.add(at, &why);
    }
}

/// Of what a claim for a volume asks for.
pub fn claim_resources(resources: &At<'_>, warnings: &mut Warnings) {
    for list in ["requests", "limits"] {
        fraction(&resources.get(list).key("storage"), warnings);
    }
}
