//! Names of signers of certificates and of trust bundles.
//!
//! Source: `pkg/apis/core/validation/names.go` of v1.37.

use crate::validation::{At, DNS_SUBDOMAIN_MAX_BYTES, Errors, dns_label, dns_subdomain};

/// Longest name of a signer, in bytes: a domain, `/`, a label, `.`, and a domain again.
const NAME_MAX_BYTES: usize = 253 + 1 + 63 + 1 + 253;

/// Checks a name of the form `example.com/signer`.
pub(crate) fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    let Some((domain, path)) = at
        .text()
        .split_once('/')
        .filter(|(_, path)| !path.contains('/'))
    else {
        let detail = "must be a fully qualified domain and path of the form \
                      'example.com/signer-name'";
        at.invalid_text(errors, detail);
        return;
    };
    if domain.len() > DNS_SUBDOMAIN_MAX_BYTES {
        at.too_long(errors, DNS_SUBDOMAIN_MAX_BYTES);
    }
    first_bad(at, domain, dns_label, errors);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        at.invalid_as(errors, domain, detail);
    }
    first_bad(at, path, dns_subdomain, errors);
    if at.text().len() > NAME_MAX_BYTES {
        at.too_long(errors, NAME_MAX_BYTES);
    }
}

fn first_bad(at: &At<'_>, text: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    for label in text.split('.') {
        let wrong = check(label);
        for message in &wrong {
            let detail = format!("validating label \"{label}\": {message}");
            at.invalid_as(errors, text, &detail);
        }
        if !wrong.is_empty() {
            return;
        }
    }
}

/// What is wrong with the name of a trust bundle: a signer's begins with its name.
pub(crate) fn trust_bundle_name(name: &str) -> Vec<String> {
    let signer = name.rsplit_once(':').map(|(signer, _)| signer);
    trust_bundle_name_of(&signer.unwrap_or_default().replace(':', "/"), name)
}

/// What is wrong with the name of a trust bundle of that signer.
pub(crate) fn trust_bundle_name_of(signer: &str, name: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            let what = "ClusterTrustBundle without signer name must not have \":\" in its name";
            return vec![what.to_owned()];
        }
        return dns_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => dns_subdomain(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}
