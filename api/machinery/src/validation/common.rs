//! Checks that many kinds share: labels and selectors, addresses, ports, paths,
//! percentages.
//!
//! Source: `apimachinery` `pkg/apis/meta/v1/validation`, `pkg/util/validation`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{At, Errors, label_value, port_name, qualified_name, shape};

/// `maxInt32`: the highest user and group id.
pub const MAX_ID: i64 = i32::MAX as i64;

/// Checks a map of labels: errors stand at the map.
pub fn labels(at: &At<'_>, errors: &mut Errors) {
    super::labels(errors, &at.path(), Some(at.value));
}

/// What is allowed in the values of a selector's requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectorValues {
    /// Values of labels.
    Checked,
    /// Anything: an older object had such values.
    Any,
}

/// Checks a `LabelSelector`, if there is one.
pub fn label_selector(at: &At<'_>, errors: &mut Errors) {
    label_selector_with(at, SelectorValues::Checked, errors);
}

/// Checks a `LabelSelector`, with or without its values.
pub fn label_selector_with(at: &At<'_>, values: SelectorValues, errors: &mut Errors) {
    if at.has("matchLabels") {
        labels(&at.get("matchLabels"), errors);
    }
    for requirement in at.get("matchExpressions").items() {
        let list = requirement.get("values");
        match requirement.str("operator") {
            "In" | "NotIn" if list.is_empty() => {
                list.required(
                    errors,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !list.is_empty() => list.forbidden(
                errors,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => requirement
                .get("operator")
                .invalid_text(errors, "not a valid selector operator"),
        }
        requirement.get("key").check(errors, qualified_name);
        if values == SelectorValues::Checked {
            for value in list.items() {
                value.check(errors, label_value);
            }
        }
    }
}

/// Whether a label selector names nothing.
pub fn is_empty_selector(at: &At<'_>) -> bool {
    at.get("matchLabels").is_empty() && at.get("matchExpressions").is_empty()
}

/// An address as the older parsers of the reference read it: leading zeros are
/// decimal.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let bare = part.trim_start_matches('0');
        *octet = match (digits, bare) {
            (false, _) => return None,
            (true, "") => 0,
            (true, bare) => bare.parse().ok()?,
        };
    }
    parts
        .next()
        .is_none()
        .then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// The address as the reference writes it.
pub fn canonical_ip(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => v6.to_string(),
        },
        IpAddr::V4(v4) => v4.to_string(),
    }
}

fn is_mapped(text: &str) -> bool {
    let v6 = text.parse::<Ipv6Addr>().ok();
    v6.is_some_and(|v6| v6.to_ipv4_mapped().is_some())
}

/// An address in a field that once took more than is good: strict for new values.
pub fn legacy_ip(at: &At<'_>, errors: &mut Errors) -> bool {
    let text = at.text();
    if parse_ip(text).is_none() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        at.invalid_text(errors, detail);
    } else if text.parse::<IpAddr>().is_err() {
        at.invalid_text(errors, "must not have leading 0s");
    } else if is_mapped(text) {
        at.invalid_text(errors, "must not be an IPv4-mapped IPv6 address");
    } else {
        return true;
    }
    false
}

/// An address in its one canonical form.
pub fn ip(at: &At<'_>, errors: &mut Errors) -> bool {
    if !legacy_ip(at, errors) {
        return false;
    }
    let canonical = parse_ip(at.text()).map(canonical_ip).unwrap_or_default();
    let good = canonical == at.text();
    if !good {
        at.invalid_text(
            errors,
            &format!("must be in canonical form (\"{canonical}\")"),
        );
    }
    good
}

/// A network: its address and the length of its prefix.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let address = parse_ip(address)?;
    let length: u8 = digits.then(|| length.parse().ok()).flatten()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// The network without the bits beyond its prefix.
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

/// A network in a field that once took more than is good: strict for new values.
pub fn legacy_cidr(at: &At<'_>, errors: &mut Errors) -> bool {
    let text = at.text();
    let Some((address, length)) = parse_cidr(text) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        at.invalid_text(errors, detail);
        return false;
    };
    let (host, bits) = text.split_once('/').unwrap_or_default();
    if host.parse::<IpAddr>().is_err() || (bits.len() > 1 && bits.starts_with('0')) {
        at.invalid_text(errors, "must not have leading 0s in IP or prefix length");
    } else if is_mapped(host) {
        at.invalid_text(errors, "must not have an IPv4-mapped IPv6 address");
    } else if masked(address, length) != address {
        at.invalid_text(errors, "must not have bits set beyond the prefix length");
    } else {
        return true;
    }
    false
}

/// A network in its one canonical form.
pub fn cidr(at: &At<'_>, errors: &mut Errors) -> bool {
    if !legacy_cidr(at, errors) {
        return false;
    }
    let canonical = parse_cidr(at.text()).map(|(address, length)| format!("{address}/{length}"));
    let canonical = canonical.unwrap_or_default();
    let good = canonical == at.text();
    if !good {
        at.invalid_text(
            errors,
            &format!("must be in canonical form (\"{canonical}\")"),
        );
    }
    good
}

/// The address of an interface and its network, in their one canonical form.
pub fn interface_address(at: &At<'_>, errors: &mut Errors) {
    let Some((address, length)) = parse_cidr(at.text()) else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        at.invalid_text(errors, detail);
        return;
    };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let length = match mapped && length > 32 {
        true => length.saturating_sub(96),
        false => length,
    };
    let canonical = format!("{}/{length}", canonical_ip(address));
    if canonical != at.text() {
        let detail = format!("must be in canonical form (\"{canonical}\")");
        at.invalid_text(errors, &detail);
    }
}

/// A port's number or name.
pub fn port_or_name(at: &At<'_>, errors: &mut Errors) {
    if at.value.is_string() {
        at.check(errors, port_name);
    } else if !(1..=65535).contains(&at.int().unwrap_or(0)) {
        at.invalid_int(errors, "must be between 1 and 65535, inclusive");
    }
}

/// A port's number; 0 if absent.
pub fn port(at: &At<'_>, errors: &mut Errors) {
    if !(1..=65535).contains(&at.int().unwrap_or(0)) {
        at.invalid_int(errors, "must be between 1 and 65535, inclusive");
    }
}

/// A path without steps up.
pub fn no_backsteps(at: &At<'_>, errors: &mut Errors) -> bool {
    let good = at.text().split('/').all(|part| part != "..");
    if !good {
        at.invalid_text(errors, "must not contain '..'");
    }
    good
}

/// A path down from where one stands.
pub fn relative_path(at: &At<'_>, errors: &mut Errors) {
    if at.text().starts_with('/') {
        at.invalid_text(errors, "must be a relative path");
    }
    no_backsteps(at, errors);
}

/// A path down whose name is not one that the node keeps for itself.
pub fn projected_path(at: &At<'_>, errors: &mut Errors) {
    relative_path(at, errors);
    if at.text().starts_with("..") && !at.text().starts_with("../") {
        at.invalid_text(errors, "must not start with '..'");
    }
}

/// What is wrong with a text as a percentage.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![shape(message, "[0-9]+%", &["1%", "93%"])]
}

/// A number that is not negative, or a percentage.
pub fn positive_int_or_percent(at: &At<'_>, errors: &mut Errors) {
    if at.value.is_string() {
        at.check(errors, percent);
    } else {
        at.not_negative(errors);
    }
}

/// The number before the percent sign, if it is a good percentage.
pub fn percent_value(at: &At<'_>) -> Option<i64> {
    let text = at.value.as_str()?;
    if percent(text).is_empty() {
        text.trim_end_matches('%').parse().ok()
    } else {
        None
    }
}

/// A percentage of at most 100.
pub fn not_more_than_100_percent(at: &At<'_>, errors: &mut Errors) {
    if percent_value(at).is_some_and(|value| value > 100) {
        at.invalid(errors, "must not be greater than 100%");
    }
}

/// What is wrong with a text as the name of an HTTP header.
pub fn http_header_name(text: &str) -> Vec<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !text.is_empty() && text.bytes().all(known) {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![shape(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// What is wrong with a text as a DNS subdomain in which underscores are allowed.
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |label: &str| {
        let inner = label.strip_prefix('_').unwrap_or(label);
        let edge = |byte: Option<u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        edge(inner.bytes().next())
            && edge(inner.bytes().last())
            && inner.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            })
    };
    let mut wrong = Vec::new();
    if text.len() > super::DNS_SUBDOMAIN_MAX_BYTES {
        wrong.push(super::longer_than(super::DNS_SUBDOMAIN_MAX_BYTES));
    }
    if !text.split('.').all(label) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                       characters, '_', '-' or '.', and must start and end with an alphanumeric \
                       character";
        let pattern = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        wrong.push(shape(message, pattern, &["example.com"]));
    }
    wrong
}

/// What is wrong with a text as a wildcard DNS subdomain.
pub fn wildcard_dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > super::DNS_SUBDOMAIN_MAX_BYTES {
        wrong.push(super::longer_than(super::DNS_SUBDOMAIN_MAX_BYTES));
    }
    let rest = text.strip_prefix("*.").unwrap_or_default();
    if !rest.split('.').all(super::matches_label) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid \
                       DNS subdomain, which must consist of lower case alphanumeric characters, \
                       '-' or '.' and end with an alphanumeric character";
        let pattern = "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
        wrong.push(shape(message, pattern, &["*.example.com"]));
    }
    wrong
}

/// What is wrong with a text as a DNS subdomain whose case does not count.
pub fn dns_subdomain_caseless(text: &str) -> Vec<String> {
    super::dns_subdomain(&text.to_ascii_lowercase())
}

/// The same, told as what it may look like.
pub fn dns_subdomain_any_case(text: &str) -> Vec<String> {
    let wrong = dns_subdomain_caseless(text);
    let told = |own: String| {
        if !own.contains("RFC 1123") {
            return own;
        }
        let message = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and \
                       must start and end with an alphanumeric character";
        let label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
        let pattern = format!("{label}(\\.{label})*");
        shape(message, &pattern, &["Example.com"])
    };
    wrong.into_iter().map(told).collect()
}

/// What is wrong with a text as an identifier of C.
pub fn c_identifier(text: &str) -> Vec<String> {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by \
                   a string of alphanumeric characters or '_'";
    vec![shape(
        message,
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// A path below a domain, as `acme.io/foo`.
pub fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    match at.text().split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for message in super::dns_subdomain(host) {
                at.invalid_as(errors, host, &message);
            }
            let known =
                |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
            if !path.bytes().all(known) {
                let detail = "Invalid path (regex used for validation is \
                              '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                at.invalid_as(errors, path, detail);
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            at.invalid_text(errors, detail);
        }
    }
}

/// A name of at least two labels.
pub fn fully_qualified_domain(at: &At<'_>, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let wrong = super::dns_subdomain(name);
    if !wrong.is_empty() {
        at.invalid_as(errors, name, &wrong.join(","));
    } else if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        at.invalid_as(errors, name, detail);
    } else if let Some(label) = name.split('.').find(|label| label.len() > 63) {
        at.invalid_as(errors, label, &super::dns_label(label).join(","));
    }
}

/// Longest reason and message of a condition, in bytes.
const REASON_MAX_BYTES: usize = 1024;
const MESSAGE_MAX_BYTES: usize = 32 * 1024;

/// A list of conditions, one of each type.
pub fn conditions(at: &At<'_>, errors: &mut Errors) {
    let mut kinds = std::collections::BTreeSet::new();
    for condition in at.items() {
        let kind = condition.get("type");
        if !kinds.insert(kind.text().to_owned()) {
            condition.duplicate_as(errors, kind.text());
        }
        if kind.is_empty() {
            kind.required(errors, "is required");
        } else {
            kind.check(errors, qualified_name);
        }
        condition
            .get("status")
            .choice(errors, &["False", "True", "Unknown"]);
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|own| own < 0) {
            generation.invalid(errors, "must be greater than or equal to zero");
        }
        condition.get("lastTransitionTime").need(errors);
        let reason = condition.get("reason");
        if reason.need(errors) {
            reason.check(errors, condition_reason);
            if reason.len() > REASON_MAX_BYTES {
                reason.too_long(errors, REASON_MAX_BYTES);
            }
        }
        let message = condition.get("message");
        if message.len() > MESSAGE_MAX_BYTES {
            message.too_long(errors, MESSAGE_MAX_BYTES);
        }
    }
}

/// What is wrong with a text as the reason of a condition.
pub fn condition_reason(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let good = matches!((bytes.first(), bytes.last()), (Some(first), Some(last))
        if first.is_ascii_alphabetic() && (last.is_ascii_alphanumeric() || *last == b'_'))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_,:".contains(byte));
    if good {
        return Vec::new();
    }
    let message = "a condition reason must start with alphabetic character, optionally followed by \
                   a string of alphanumeric characters or '_,:', and must end with an alphanumeric \
                   character or '_'";
    vec![shape(
        message,
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &[
            "my_name",
            "MY_NAME",
            "MyName",
            "ReasonA,ReasonB",
            "ReasonA:ReasonB",
        ],
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal() {
        assert_eq!(parse_ip("010.0.0.001"), "10.0.0.1".parse().ok());
        assert_eq!(parse_ip("1.2.3"), None);
        assert_eq!(parse_ip("1.2.3.256"), None);
        assert_eq!(parse_ip("1.2.3.4.5"), None);
    }

    #[test]
    fn the_bits_beyond_a_prefix_are_cut() {
        let (address, length) = parse_cidr("10.1.2.3/8").expect("a network");
        assert_eq!(masked(address, length).to_string(), "10.0.0.0");
        assert_eq!(masked(address, 0).to_string(), "0.0.0.0");
        assert_eq!(parse_cidr("10.0.0.0/33"), None);
    }
}
