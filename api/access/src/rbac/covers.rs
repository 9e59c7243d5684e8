//! Whether rules give at least what others give, down to single permissions.

use std::collections::BTreeMap;

use super::rule::{Rule, url_covers};

/// What of `wanted` no single rule of `owned` gives, as rules of one permission each.
pub fn covers(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted
        .iter()
        .flat_map(breakdown)
        .filter(|single| !owned.iter().any(|own| rule_covers(own, single)))
        .collect()
}

/// A rule as rules of one verb, one group, one resource and at most one name each.
pub fn breakdown(rule: &Rule) -> Vec<Rule> {
    let mut singles = Vec::new();
    let one = |text: &String| vec![text.clone()];
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let single = |names: Vec<String>| Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: names,
                    non_resource_urls: Vec::new(),
                };
                if rule.resource_names.is_empty() {
                    singles.push(single(Vec::new()));
                }
                singles.extend(rule.resource_names.iter().map(|name| single(one(name))));
            }
        }
    }
    for url in &rule.non_resource_urls {
        singles.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..Rule::default()
        }));
    }
    singles
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == wanted)
}

fn all_or_each(owned: &[String], wanted: &[String]) -> bool {
    has(owned, "*") || wanted.iter().all(|one| has(owned, one))
}

fn rule_covers(own: &Rule, single: &Rule) -> bool {
    let resources = has(&own.resources, "*")
        || single.resources.iter().all(|wanted| {
            has(&own.resources, wanted)
                || wanted
                    .split_once('/')
                    .is_some_and(|(_, sub)| has(&own.resources, &format!("*/{sub}")))
        });
    let names = own.resource_names.is_empty()
        || (!single.resource_names.is_empty()
            && single
                .resource_names
                .iter()
                .all(|name| has(&own.resource_names, name)));
    let urls = single.non_resource_urls.iter().all(|wanted| {
        own.non_resource_urls
            .iter()
            .any(|url| url_covers(url, wanted))
    });
    all_or_each(&own.verbs, &single.verbs)
        && all_or_each(&own.api_groups, &single.api_groups)
        && resources
        && names
        && urls
}

/// Rules of one group and resource that differ in their verbs only, joined.
pub fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut joined = Vec::new();
    let mut simple: BTreeMap<(String, String, Option<String>), Rule> = BTreeMap::new();
    for rule in rules {
        let [group] = rule.api_groups.as_slice() else {
            joined.push(rule);
            continue;
        };
        let [resource] = rule.resources.as_slice() else {
            joined.push(rule);
            continue;
        };
        if rule.resource_names.len() > 1 || !rule.non_resource_urls.is_empty() {
            joined.push(rule);
            continue;
        }
        let key = (
            group.clone(),
            resource.clone(),
            rule.resource_names.first().cloned(),
        );
        match simple.get_mut(&key) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => {
                simple.insert(key, rule);
            }
        }
    }
    joined.extend(simple.into_values());
    joined
}
