//! Nodes that join with a Seal token: as whom they come until they have a certificate, and in
//! which forms the token is carried.
//!
//! Invariant: such a user is named after the one node that its token speaks for, and may ask for
//! that node's client certificate alone.

use nautilus_machinery::identity::User;

use crate::bootstrap_token;

/// The group of everybody who comes with one, beside that of all bootstrappers.
pub const GROUP: &str = "system:bootstrappers:nautilus:seal";
/// What comes before the node's name in the user's; no bootstrap token has such an id.
const USER_PREFIX: &str = "system:bootstrap:seal:";
/// What comes before the node's name in the group of its agent.
const AGENT_PREFIX: &str = "nautilus:agent-of:";
/// What the join tokens of K3s begin with.
const K3S_PREFIX: &str = "K10";

/// The user of a token that speaks for this node.
pub fn user(node: &str) -> User {
    let groups = vec![bootstrap_token::GROUP.to_owned(), GROUP.to_owned()];
    User::authenticated(format!("{USER_PREFIX}{node}"), groups)
}

/// The node that a user joins as, if it came with a Seal token.
pub fn node_of(user: &User) -> Option<&str> {
    user.name
        .strip_prefix(USER_PREFIX)
        .filter(|node| !node.is_empty() && user.in_group(GROUP))
}

/// The group in the certificates that a node's agent has beside its kubelet's: they count as long
/// as the node's do.
pub fn agents_group(node: &str) -> String {
    format!("{AGENT_PREFIX}{node}")
}

/// The node whose agent a user is.
pub fn agent_of(user: &User) -> Option<&str> {
    let mut groups = user.groups.iter();
    groups.find_map(|group| group.strip_prefix(AGENT_PREFIX))
}

/// The token itself in a join token of K3s (`K10<hash of the authority>::<user>:<token>`), or
/// in one without its surroundings.
pub fn bare(token: &str) -> &str {
    let inner = token
        .strip_prefix(K3S_PREFIX)
        .and_then(|rest| rest.split_once("::"))
        .and_then(|(_, credentials)| credentials.split_once(':'));
    inner.map_or(token, |(_, password)| password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_speaks_for_one_node_and_its_name_proves_nothing_without_the_group() {
        let joining = user("worker-1");
        assert_eq!(node_of(&joining), Some("worker-1"));
        assert!(joining.in_group("system:bootstrappers"));
        let named = User::authenticated(joining.name, Vec::new());
        assert_eq!(node_of(&named), None);
        assert_eq!(node_of(&user("")), None);
    }

    #[test]
    fn an_agents_certificate_names_its_node() {
        let groups = vec!["system:authenticated".to_owned(), agents_group("worker-1")];
        let agent = User::authenticated("system:kube-proxy", groups);
        assert_eq!(agent_of(&agent), Some("worker-1"));
        assert_eq!(agent_of(&user("worker-1")), None);
    }

    #[test]
    fn a_join_token_of_k3s_holds_the_token() {
        for (text, token) in [
            ("0xseal", "0xseal"),
            ("K10abc::node:0xseal", "0xseal"),
            ("K10abc:::0xseal", "0xseal"),
            ("K10abc::server:a:b", "a:b"),
            ("K10abc", "K10abc"),
        ] {
            assert_eq!(bare(text), token, "{text}");
        }
    }
}
