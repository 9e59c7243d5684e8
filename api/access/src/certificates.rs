//! Certificate signing requests: what stands in one, which signer takes it, and who may
//! ask, approve and sign.
//!
//! Source: `certificates.k8s.io/v1`; the reference's signers, approver and admission.
//! The request's own signature is checked by who signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nautilus_machinery::identity::{MASTERS_GROUP, User};
use nautilus_machinery::status::quote;
use nautilus_machinery::timestamp;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::attributes::Attributes;
use crate::seal;

/// The API group.
pub const GROUP: &str = "certificates.k8s.io";
/// Client certificates that the API server takes.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Anything, with nothing guaranteed.
pub const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Bytes of a request, at most.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The shortest life of a certificate, in seconds.
const MIN_LIFETIME_S: u64 = 600;
/// The life of a certificate when nobody asks for less, in seconds.
pub const DEFAULT_LIFETIME_S: u64 = 365 * 86_400;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The PKCS#10 DER.
    pub der: Vec<u8>,
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Names to serve under.
    pub dns_names: Vec<String>,
    /// Addresses to serve under: 4 or 16 bytes.
    pub addresses: Vec<Vec<u8>>,
    emails: usize,
    uris: usize,
}

impl Request {
    /// Reads the request of a `CertificateSigningRequest`.
    pub fn of_object(object: &Value) -> Result<Self, String> {
        let text = object["spec"]["request"].as_str().unwrap_or_default();
        if text.len() > MAX_REQUEST_BYTES {
            return Err(format!("more than {MAX_REQUEST_BYTES} bytes"));
        }
        let pem = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let der = pem_to_der(&pem)
            .ok_or_else(|| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        Self::read(der)
    }

    fn read(der: Vec<u8>) -> Result<Self, String> {
        let mut request = Self::default();
        {
            let (_, parsed) =
                X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
            let subject = &parsed.certification_request_info.subject;
            let texts = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| {
                part.as_str().unwrap_or_default().to_owned()
            };
            if let Some(name) = subject.iter_common_name().last() {
                request.common_name = texts(name);
            }
            request.organizations = subject.iter_organization().map(texts).collect();
            for extension in parsed.requested_extensions().into_iter().flatten() {
                if let ParsedExtension::SubjectAlternativeName(names) = extension {
                    names
                        .general_names
                        .iter()
                        .for_each(|name| request.note(name));
                }
            }
        }
        request.der = der;
        Ok(request)
    }

    fn note(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(address) => self.addresses.push(address.to_vec()),
            GeneralName::RFC822Name(_) => self.emails += 1,
            // Whatever else there is, kubelets ask for none of it.
            _ => self.uris += 1,
        }
    }

    fn of_node(&self) -> Result<(), String> {
        if self.organizations != ["system:nodes"] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        Ok(())
    }

    fn named_as_node(&self) -> Result<(), String> {
        if self.common_name.starts_with("system:node:") {
            return Ok(());
        }
        Err("subject common name does not begin with system:node:".to_owned())
    }

    fn kubelet_client(&self, usages: &[&str]) -> Result<(), String> {
        self.of_node()?;
        for (some, what) in [
            (!self.dns_names.is_empty(), "DNS"),
            (self.emails > 0, "Email"),
            (!self.addresses.is_empty(), "IP"),
            (self.uris > 0, "URI"),
        ] {
            if some {
                return Err(format!("{what} subjectAltNames are not allowed"));
            }
        }
        self.named_as_node()?;
        exact_usages(usages, "client auth")
    }

    fn kubelet_serving(&self, usages: &[&str]) -> Result<(), String> {
        self.of_node()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        for (some, what) in [(self.emails > 0, "Email"), (self.uris > 0, "URI")] {
            if some {
                return Err(format!("{what} subjectAltNames are not allowed"));
            }
        }
        exact_usages(usages, "server auth")?;
        self.named_as_node()
    }
}

fn pem_to_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE REQUEST-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE REQUEST-----")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).ok()
}

/// Signing with the key, perhaps encrypting with it, and one purpose.
fn exact_usages(usages: &[&str], purpose: &str) -> Result<(), String> {
    const OPTIONAL: &str = "key encipherment";
    let has = |usage: &str| usages.contains(&usage);
    let known = |usage: &&str| ["digital signature", OPTIONAL, purpose].contains(usage);
    if has("digital signature") && has(purpose) && usages.iter().all(known) {
        return Ok(());
    }
    let mut all = [purpose, "digital signature", OPTIONAL];
    all.sort_unstable();
    Err(format!("usages did not match [{}]", all.join(" ")))
}

fn usages(object: &Value) -> Vec<&str> {
    let list = object["spec"]["usages"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Whether a condition of that type is there and not false.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let list = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    list.filter(|condition| condition["type"] == kind)
        .any(|condition| condition["status"] != "False")
}

/// What the signers of this quorum make of an approved request: a certificate to sign,
/// a reason why it never will be, or nothing (it is not theirs, or not yet).
pub fn to_sign(object: &Value) -> Option<Result<Request, String>> {
    let open = has_condition(object, "Approved")
        && !has_condition(object, "Denied")
        && !has_condition(object, "Failed")
        && object["status"]["certificate"]
            .as_str()
            .is_none_or(str::is_empty);
    let ours = [
        CLIENT_SIGNER,
        KUBELET_CLIENT_SIGNER,
        KUBELET_SERVING_SIGNER,
        LEGACY_SIGNER,
    ];
    if !open || !ours.contains(&signer(object)) {
        return None;
    }
    let usages = usages(object);
    Some(Request::of_object(object).and_then(|request| {
        match signer(object) {
            KUBELET_CLIENT_SIGNER => request.kubelet_client(&usages)?,
            KUBELET_SERVING_SIGNER => request.kubelet_serving(&usages)?,
            CLIENT_SIGNER => client_usages(&usages)?,
            _ => {}
        }
        Ok(request)
    }))
}

fn client_usages(usages: &[&str]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    for usage in usages {
        if *usage != "client auth" && !optional.contains(usage) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    if usages.contains(&"client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".to_owned())
}

/// Seconds for which a request that was decided about is kept.
const DECIDED_KEPT_S: i64 = 3_600;
/// The same of one that nobody decided about.
const PENDING_KEPT_S: i64 = 86_400;

/// Whether a request has been of use long enough, at `now` (seconds).
pub fn is_stale(object: &Value, now: i64) -> bool {
    let older = |text: &Value, than: i64| {
        let at = text.as_str().and_then(timestamp::parse);
        at.is_some_and(|at| now - at.seconds > than)
    };
    let conditions = object["status"]["conditions"].as_array();
    match conditions.map_or(&[][..], Vec::as_slice) {
        [] => older(&object["metadata"]["creationTimestamp"], PENDING_KEPT_S),
        decided => decided
            .iter()
            .any(|condition| older(&condition["lastUpdateTime"], DECIDED_KEPT_S)),
    }
}

/// How long the certificate of a request shall be valid, in seconds.
pub fn lifetime_s(object: &Value) -> u64 {
    object["spec"]["expirationSeconds"]
        .as_u64()
        .unwrap_or(DEFAULT_LIFETIME_S)
        .clamp(MIN_LIFETIME_S, DEFAULT_LIFETIME_S)
}

/// The usages that the certificate of a request is for.
pub fn usages_of(object: &Value) -> Vec<String> {
    usages(object).into_iter().map(str::to_owned).collect()
}

/// The user that made a request.
pub fn requester(object: &Value) -> User {
    let text = |field: &str| {
        object["spec"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    User {
        name: text("username"),
        uid: text("uid"),
        groups: serde_json::from_value(object["spec"]["groups"].clone()).unwrap_or_default(),
        extra: serde_json::from_value(object["spec"]["extra"].clone()).unwrap_or_default(),
    }
}

/// The message with which a kubelet's request is approved by itself: its requester may
/// ask for that (`nodeclient`), or for its own (`selfnodeclient`).
pub fn auto_approval(
    object: &Value,
    authorize: &dyn Fn(&User, &Attributes) -> bool,
) -> Option<&'static str> {
    let decided = ["Approved", "Denied"]
        .iter()
        .any(|kind| has_condition(object, kind));
    if decided || signer(object) != KUBELET_CLIENT_SIGNER {
        return None;
    }
    let request = Request::of_object(object).ok()?;
    request.kubelet_client(&usages(object)).ok()?;
    let user = requester(object);
    if beyond_own_node(object, &user, &request).is_some() {
        return None;
    }
    let may = |subresource: &str| {
        let asked = Attributes {
            verb: "create".to_owned(),
            is_resource: true,
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "certificatesigningrequests".to_owned(),
            subresource: subresource.to_owned(),
            ..Attributes::default()
        };
        authorize(&user, &asked)
    };
    if user.name == request.common_name && may("selfnodeclient") {
        return Some("Auto approving self kubelet client certificate after SubjectAccessReview.");
    }
    may("nodeclient")
        .then_some("Auto approving kubelet client certificate after SubjectAccessReview.")
}

/// A request as its creation stores it: by this user, and not decided about.
pub fn prepare(object: &mut Value, user: &User) {
    let spec = &mut object["spec"];
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|key, _| !["username", "uid", "groups", "extra"].contains(&key.as_str()));
    }
    spec["username"] = user.name.as_str().into();
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        spec["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    object["status"] = json!({});
}

/// Why a user that joins with a Seal token may not have this: it asks for something else than
/// the client certificate of the node that its token speaks for.
fn beyond_own_node(object: &Value, user: &User, request: &Request) -> Option<String> {
    let node = seal::node_of(user)?;
    let own = signer(object) == KUBELET_CLIENT_SIGNER
        && request.common_name == format!("system:node:{node}");
    (!own).then(|| {
        format!(
            "a Seal token of the node {} obtains that node's client certificate alone",
            quote(node)
        )
    })
}

/// Why a creation of a request is forbidden, if it is.
pub fn forbidden_creation(object: &Value) -> Option<String> {
    let user = requester(object);
    if seal::node_of(&user).is_some() {
        let request = Request::of_object(object).unwrap_or_default();
        if let Some(why) = beyond_own_node(object, &user, &request) {
            return Some(why);
        }
    }
    if signer(object) != CLIENT_SIGNER {
        return None;
    }
    match Request::of_object(object) {
        Err(error) => Some(format!("failed to parse CSR: {error}")),
        Ok(request) => request
            .organizations
            .iter()
            .any(|group| group == MASTERS_GROUP)
            .then(|| {
                format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed")
            }),
    }
}

/// Why a change by this subresource is forbidden, if it is.
pub fn forbidden_update(
    subresource: &str,
    old: &Value,
    new: &Value,
    authorize: &dyn Fn(&Attributes) -> bool,
) -> Option<String> {
    let verb = match subresource {
        "approval" => "approve",
        "status" => {
            let part = |object: &Value, field: &str| object["status"][field].clone();
            let same = |field: &str| part(old, field) == part(new, field);
            if same("certificate") && same("conditions") {
                return None;
            }
            "sign"
        }
        _ => return None,
    };
    let name = signer(old);
    let of_domain = name
        .split_once('/')
        .map(|(domain, _)| format!("{domain}/*"))
        .unwrap_or_default();
    let may = [name, &of_domain].iter().any(|signer| {
        authorize(&Attributes {
            verb: verb.to_owned(),
            is_resource: true,
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name: (*signer).to_owned(),
            ..Attributes::default()
        })
    });
    (!may).then(|| {
        format!(
            "user not permitted to {verb} requests with signerName {}",
            quote(name)
        )
    })
}
