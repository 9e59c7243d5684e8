//! The evaluator against a naive one, and what only an example shows.

use nautilus_machinery::identity::User;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::attributes::Attributes;

/// Every binding and every rule looked at, one after the other.
fn naive(
    roles: &[(String, String, RoleRow)],
    bindings: &[(String, String, BindingRow)],
    user: &User,
    asked: &Attributes,
) -> bool {
    bindings.iter().any(|(namespace, _, binding)| {
        let here = namespace.is_empty() || *namespace == asked.namespace;
        let bound = binding
            .subjects
            .iter()
            .any(|subject| subject.applies_to(user, namespace));
        let of = if binding.role_ref.kind == "Role" {
            namespace
        } else {
            ""
        };
        let allowed = roles
            .iter()
            .rev()
            .find(|(namespace, name, _)| namespace == of && *name == binding.role_ref.name)
            .is_some_and(|(_, _, role)| role.rules.iter().any(|rule| rule.allows(asked)));
        let known = match binding.role_ref.kind.as_str() {
            "Role" => !namespace.is_empty(),
            kind => kind == "ClusterRole",
        };
        here && bound && allowed && known
    })
}

fn word(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(of).prop_map(str::to_owned)
}

fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(word(of), 0..3)
}

const VERBS: &[&str] = &["get", "list", "create", "*"];
const GROUPS: &[&str] = &["", "apps", "*"];
const RESOURCES: &[&str] = &["pods", "pods/log", "*/log", "secrets", "*"];
const NAMES: &[&str] = &["a", "b"];
const URLS: &[&str] = &["/x", "/x/*", "*", "/y"];
const NAMESPACES: &[&str] = &["", "n1", "n2"];

fn rule() -> impl Strategy<Value = Rule> {
    (
        words(VERBS),
        words(GROUPS),
        words(RESOURCES),
        words(NAMES),
        words(URLS),
    )
        .prop_map(
            |(verbs, api_groups, resources, resource_names, non_resource_urls)| Rule {
                verbs,
                api_groups,
                resources,
                resource_names,
                non_resource_urls,
            },
        )
}

fn subject() -> impl Strategy<Value = Subject> {
    (
        word(&["User", "Group", "ServiceAccount", "Other"]),
        word(&["jane", "dev", "system:serviceaccount:n1:robot", "robot"]),
        word(NAMESPACES),
    )
        .prop_map(|(kind, name, namespace)| Subject {
            kind,
            name,
            namespace,
            ..Subject::default()
        })
}

fn role() -> impl Strategy<Value = (String, String, RoleRow)> {
    let rules = proptest::collection::vec(rule(), 0..3);
    (word(NAMESPACES), word(&["r1", "r2"]), rules)
        .prop_map(|(namespace, name, rules)| (namespace, name, RoleRow { rules }))
}

fn binding() -> impl Strategy<Value = (String, String, BindingRow)> {
    (
        word(NAMESPACES),
        word(&["b1", "b2", "b3"]),
        word(&["Role", "ClusterRole", "Other"]),
        word(&["r1", "r2", "r3"]),
        proptest::collection::vec(subject(), 0..4),
    )
        .prop_map(|(namespace, name, kind, role, subjects)| {
            let role_ref = RoleRef {
                api_group: GROUP.to_owned(),
                kind,
                name: role,
            };
            (namespace, name, BindingRow { role_ref, subjects })
        })
}

fn user() -> impl Strategy<Value = User> {
    prop_oneof![
        words(&["dev", "ops", "dev"]).prop_map(|groups| User::authenticated("jane", groups)),
        Just(User::service_account("n1", "robot", "")),
        Just(User::anonymous()),
    ]
}

fn asked() -> impl Strategy<Value = Attributes> {
    (
        any::<bool>(),
        word(&["get", "list", "delete"]),
        word(&["", "apps", "batch"]),
        word(&["pods", "secrets"]),
        word(&["", "log"]),
        word(NAMESPACES),
        word(&["", "a", "c"]),
        word(&["/x", "/x/1", "/y", "/z"]),
    )
        .prop_map(
            |(is_resource, verb, group, resource, subresource, namespace, name, path)| Attributes {
                verb,
                is_resource,
                group,
                resource,
                subresource,
                namespace,
                name,
                path,
                ..Attributes::default()
            },
        )
}

proptest! {
    /// Whatever the order in which roles and bindings came, were changed and went.
    #[test]
    fn the_index_decides_as_a_search_of_everything_does(
        roles in proptest::collection::vec(role(), 0..5),
        bindings in proptest::collection::vec(binding(), 0..8),
        gone in proptest::collection::vec((word(NAMESPACES), word(&["b1", "b2", "b3"])), 0..3),
        user in user(),
        asked in asked(),
    ) {
        let mut policy = Policy::default();
        for (namespace, name, role) in &roles {
            policy.set_role(namespace, name, Some(role.clone().into()));
        }
        for (namespace, name, row) in &bindings {
            policy.set_binding(namespace, name, Some(row.clone().into()));
        }
        for (namespace, name) in &gone {
            policy.set_binding(namespace, name, None);
        }
        let mut left: Vec<(String, String, BindingRow)> = Vec::new();
        for (namespace, name, row) in bindings {
            left.retain(|(other, own, _)| (other, own) != (&namespace, &name));
            left.push((namespace, name, row));
        }
        left.retain(|(namespace, name, _)| !gone.contains(&(namespace.clone(), name.clone())));
        prop_assert_eq!(
            policy.authorize(&user, &asked).is_allowed(),
            naive(&roles, &left, &user, &asked)
        );
    }

    /// Rules that cover others allow all that the others allow.
    #[test]
    fn what_is_covered_is_allowed(
        owned in proptest::collection::vec(rule(), 0..3),
        wanted in rule(),
        asked in asked(),
    ) {
        if covers(&owned, std::slice::from_ref(&wanted)).is_empty() && wanted.allows(&asked) {
            prop_assert!(owned.iter().any(|rule| rule.allows(&asked)));
        }
    }
}

fn rules(value: &serde_json::Value) -> RoleRow {
    RoleRow::read(&json!({ "rules": value })).expect("rules")
}

fn bound(kind: &str, role: &str, subject: &serde_json::Value) -> BindingRow {
    BindingRow::read(&json!({
        "roleRef": { "apiGroup": GROUP, "kind": kind, "name": role }, "subjects": [subject],
    }))
    .expect("a binding")
}

fn ask(verb: &str, namespace: &str, resource: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        is_resource: true,
        resource: resource.into(),
        namespace: namespace.into(),
        ..Attributes::default()
    }
}

#[test]
fn a_decision_says_what_it_rests_on() {
    let mut policy = Policy::default();
    let user = User::service_account("n1", "robot", "");
    policy.set_role(
        "",
        "reader",
        Some(
            rules(&json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }])).into(),
        ),
    );
    let robot = json!({ "kind": "ServiceAccount", "name": "robot" });
    policy.set_binding(
        "n1",
        "b",
        Some(bound("ClusterRole", "reader", &robot).into()),
    );
    policy.set_binding("n1", "lost", Some(bound("Role", "gone", &robot).into()));
    assert_eq!(
        policy.authorize(&user, &ask("get", "n1", "pods")).reason(),
        "RBAC: allowed by RoleBinding \"b/n1\" of ClusterRole \"reader\" to ServiceAccount \
         \"robot/n1\""
    );
    assert_eq!(
        policy.authorize(&user, &ask("list", "n1", "pods")).reason(),
        "RBAC: role.rbac.authorization.k8s.io \"gone\" not found"
    );
    assert_eq!(
        policy.authorize(&user, &ask("get", "n2", "pods")).reason(),
        ""
    );
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let mut policy = Policy::default();
    let jane = User::authenticated("jane", vec![]);
    let own = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
    policy.set_role("n1", "own", Some(rules(&own).into()));
    let subject = json!({ "kind": "User", "name": "jane" });
    policy.set_binding("n1", "own", Some(bound("Role", "own", &subject).into()));
    let guarded = Guarded {
        plural: "roles",
        namespace: "n1",
        request_name: "",
    };
    let role = |rules: serde_json::Value| json!({ "metadata": { "name": "r" }, "rules": rules });
    let check = |role: &serde_json::Value, allowed| {
        check_role(&policy, &jane, guarded, role, None, &|_| allowed)
    };
    assert_eq!(check(&role(own), false), Ok(()));
    let more = role(json!([
        { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "secrets"] },
    ]));
    assert_eq!(
        check(&more, false)
            .expect_err("more than jane has")
            .message(),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
         currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
    );
    assert_eq!(check(&more, true), Ok(()));
}

#[test]
fn reconciling_adds_what_is_missing_and_keeps_what_was_added() {
    let expected = json!({
        "metadata": { "annotations": { "a": "1" } },
        "rules": [{ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] }],
    });
    let mut present = json!({
        "metadata": { "annotations": { "a": "2" } },
        "rules": [{ "verbs": ["get", "watch"], "apiGroups": [""], "resources": ["pods"] }],
    });
    let Ok(Reconciled::Update(updated)) = reconcile(&present, &expected) else {
        panic!("something is missing");
    };
    assert_eq!(updated["metadata"]["annotations"]["a"], "2");
    assert_eq!(updated["rules"][1]["verbs"], json!(["list"]));
    assert_eq!(reconcile(&updated, &expected), Ok(Reconciled::Keep));
    present["metadata"]["annotations"] =
        json!({ "rbac.authorization.kubernetes.io/autoupdate": "false" });
    assert_eq!(reconcile(&present, &expected), Ok(Reconciled::Keep));
}

#[test]
fn the_table_reads_into_whole_objects() {
    let all = bootstrap::all();
    assert_eq!(
        all.iter()
            .filter(|one| one.plural == "clusterroles")
            .count(),
        74
    );
    for one in &all {
        let object = &one.object;
        assert_eq!(
            reconcile(object, object),
            Ok(Reconciled::Keep),
            "{}",
            one.name
        );
        let roles = one.plural.ends_with("roles");
        assert!(if roles {
            RoleRow::read(object).is_ok()
        } else {
            BindingRow::read(object).is_ok()
        });
    }
    let view = all.iter().find(|one| one.name == "view").expect("view");
    let others: Vec<_> = all.iter().map(|one| one.object.clone()).collect();
    let gathered = aggregated_rules(&view.object, &others).expect("view gathers");
    assert_eq!(gathered.len(), 12);
}

#[test]
fn a_stake_on_the_chain_allows_what_its_groups_are_bound_to() {
    let all = bootstrap::all();
    let objects: Vec<_> = all.iter().map(|one| one.object.clone()).collect();
    let mut policy = Policy::default();
    for one in &all {
        let namespace = one.namespace.as_deref().unwrap_or_default();
        if one.plural.ends_with("bindings") {
            let row = BindingRow::read(&one.object).expect("a binding");
            policy.set_binding(namespace, &one.name, Some(row.into()));
        } else {
            let mut row = RoleRow::read(&one.object).expect("a role");
            if let Some(gathered) = aggregated_rules(&one.object, &objects) {
                row.rules = gathered;
            }
            policy.set_role(namespace, &one.name, Some(row.into()));
        }
    }
    let groups = ["view", "node", "admin"].map(|tier| format!("nautilus:stake:{tier}"));
    for (verb, resource, allowed) in [
        ("get", "pods", [true, true, true]),
        ("get", "nodes", [false, true, true]),
        ("get", "secrets", [false, false, true]),
        ("create", "pods", [false, false, true]),
    ] {
        for (most, expected) in allowed.into_iter().enumerate() {
            let user = User::authenticated("sui:0xa1", groups[..=most].to_vec());
            let decision = policy.authorize(&user, &ask(verb, "n1", resource));
            assert_eq!(decision.is_allowed(), expected, "{verb} {resource} {most}");
        }
    }
}

/// Canonical JSON: sorted keys, no spaces.
fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
            let fields: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", json!(key), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn the_bootstrap_roles_are_those_of_the_reference() {
    let mut ours: Vec<String> = bootstrap::reference()
        .into_iter()
        .map(|one| {
            let mut object = one.object;
            let fields = object.as_object_mut().expect("an object");
            fields.shift_remove("apiVersion");
            fields.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
            let kind = object["kind"].as_str().unwrap_or_default();
            let place = match &one.namespace {
                Some(namespace) => format!("{namespace}/{}", one.name),
                None => one.name,
            };
            format!("{:016x} {place} {kind}", fnv1a(&canonical(&object)))
        })
        .collect();
    let mut reference: Vec<&str> = include_str!("../../bootstrap/roles.golden")
        .lines()
        .collect();
    ours.sort();
    reference.sort_unstable();
    assert_eq!(ours, reference);
}
