//! Certificates over an agent's own key.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use nautilus_access::seal;
use nautilus_machinery::identity::{NODE_USER_PREFIX, NODES_GROUP, User};
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use super::{PEM_TYPE, Purpose, claimed_node, header, node_of, password};
use crate::access::role_of_user;
use crate::authority::{CLIENT_VALIDITY, CheckedRequest, MAX_CSR_BYTES, der_to_pem};
use crate::body;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::respond;
use crate::storage::built_in;
use crate::tunnel;

/// The header with the node's password.
const PASSWORD_HEADER: &str = "k3s-node-password";
/// The header with the node's addresses, separated by commas.
const ADDRESSES_HEADER: &str = "k3s-node-ip";
/// Addresses in one kubelet's certificate.
const MAX_ADDRESSES: usize = 16;
/// The user of every agent's proxy; the bootstrap roles know it.
const PROXY_USER: &str = "system:kube-proxy";
/// The user of every agent's own controllers.
const CONTROLLER_USER: &str = "system:k3s-controller";

/// What the controllers of an agent may do: to follow the servers and to find their own node.
pub(crate) fn controller_role() -> [(&'static str, Value); 2] {
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch"],
        })
    };
    let rules = json!([
        rule("", &["nodes", "endpoints"]),
        rule("discovery.k8s.io", &["endpointslices"]),
    ]);
    role_of_user(CONTROLLER_USER, CONTROLLER_USER, &rules)
}

/// Issues what is asked for, over the key of the request in the body (PKCS#10 in DER), with
/// the authority's certificate behind it.
pub(super) async fn issue(
    context: &Arc<RestContext>,
    purpose: Purpose,
    user: &User,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, content) = request.into_parts();
    let own = node_of(user).ok_or_else(ApiError::unauthorized)?;
    let content = body::read(&parts.headers, content, MAX_CSR_BYTES).await?;
    let asked = CheckedRequest::from_der(&content)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let authority = &context.authority;
    let node = check_node(context, user, own, &parts.headers).await?;
    let client =
        |name: &str, group: String| authority.issue_client(&asked, name, &[group], CLIENT_VALIDITY);
    let issued = match purpose {
        Purpose::KubeProxy => client(PROXY_USER, seal::agents_group(&node)),
        Purpose::Controller => client(CONTROLLER_USER, seal::agents_group(&node)),
        Purpose::KubeletClient => {
            client(&format!("{NODE_USER_PREFIX}{node}"), NODES_GROUP.to_owned())
        }
        Purpose::KubeletServing => {
            let names = serving_names(context, &node, &parts.headers)?;
            authority.issue_kubelet_serving(&asked, &node, &names, CLIENT_VALIDITY)
        }
    };
    let certificate = issued.map_err(|error| ApiError::bad_request(error.to_string()))?;
    tracing::info!(node = own, ?purpose, "issued an agent's certificate");
    let mut pem = der_to_pem("CERTIFICATE", &certificate);
    pem.push_str(&authority.certificate_pem());
    Ok(respond::bytes(StatusCode::OK, PEM_TYPE, pem))
}

/// The node that the request is about: it must be the one that the credential speaks for, and
/// have its password.
async fn check_node(
    context: &RestContext,
    user: &User,
    own: &str,
    headers: &HeaderMap,
) -> Result<String, Failure> {
    let node = claimed_node(headers).ok_or_else(|| ApiError::bad_request("node name not set"))?;
    if node != own {
        let why = format!("the credential speaks for the node {own}, not for {node}");
        return Err(ApiError::given(403, "Forbidden", &why, &Value::Null).into());
    }
    if tunnel::node_of(user).is_some() {
        // By the certificate of a node that was deleted: the agent comes again with its token.
        let nodes = built_in("", "nodes")?;
        let storage = context.storage();
        storage.barrier().await?;
        if storage.read(nodes, &nodes.key(None, &node))?.is_none() {
            return Err(ApiError::unauthorized().into());
        }
    }
    password::ensure(context, &node, header(headers, PASSWORD_HEADER)).await?;
    Ok(node)
}

/// The names that a kubelet serves under. None of them may be an API server's.
fn serving_names(
    context: &RestContext,
    node: &str,
    headers: &HeaderMap,
) -> Result<Vec<String>, ApiError> {
    let mut names = vec![node.to_owned()];
    let addresses = header(headers, ADDRESSES_HEADER).split(',').map(str::trim);
    for address in addresses.filter(|address| !address.is_empty()) {
        let parsed: IpAddr = address
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid node IP address {address:?}")))?;
        // As its verifiers compare them: an IPv4 address in IPv6's form is the IPv4 address.
        names.push(parsed.to_canonical().to_string());
    }
    if names.len() > MAX_ADDRESSES {
        return Err(ApiError::bad_request(format!(
            "a kubelet serves at no more than {MAX_ADDRESSES} names and addresses"
        )));
    }
    let members = context.cluster.members();
    let hosts = members.iter().map(|member| host_of(&member.api_address));
    let servers: Vec<&str> = hosts
        .chain([host_of(&context.node.api_address)])
        .chain(context.node.serving_names.iter().map(String::as_str))
        .collect();
    match names.iter().find(|name| is_server(&servers, name)) {
        Some(name) => {
            let why = format!("{name} is a name of this quorum's API servers");
            Err(ApiError::given(403, "Forbidden", &why, &Value::Null))
        }
        None => Ok(names),
    }
}

fn is_server(servers: &[&str], name: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().map(|it| it.to_canonical());
    match address(name) {
        Ok(own) => {
            own.is_loopback()
                || own.is_unspecified()
                || servers.iter().any(|server| address(server) == Ok(own))
        }
        Err(_) => servers
            .iter()
            .any(|server| server.eq_ignore_ascii_case(name)),
    }
}

/// The host of `https://host:port`; an IPv6 address without its brackets.
fn host_of(address: &str) -> &str {
    let rest = address.strip_prefix("https://").unwrap_or(address);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kubelet_serves_as_an_api_server() {
        let servers = [
            host_of("https://10.0.0.1:6443"),
            host_of("https://[fd00::1]:6443"),
            "kubernetes",
        ];
        for (name, expected) in [
            ("worker-1", false),
            ("10.0.0.2", false),
            ("10.0.0.1", true),
            ("fd00:0::1", true),
            ("Kubernetes", true),
            ("127.0.0.1", true),
            ("::", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:127.0.0.1", true),
        ] {
            assert_eq!(is_server(&servers, name), expected, "{name}");
        }
    }
}
