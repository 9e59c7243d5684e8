//! Cluster roles that gather the rules of others by label.

use nautilus_machinery::selector::LabelSelector;
use serde_json::Value;

use super::rule::Rule;

/// The rules that `role` gathers from `others` (all cluster roles, in the order of
/// names); `None` when it has no aggregation rule, or one that cannot be read.
pub fn aggregated_rules(role: &Value, others: &[Value]) -> Option<Vec<Rule>> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
    let mut gathered: Vec<Rule> = Vec::new();
    for selector in selectors {
        let selector = LabelSelector::of_object(selector).ok()?;
        for other in others {
            if other["metadata"]["name"] == role["metadata"]["name"] || !selector.matches(other) {
                continue;
            }
            for rule in super::RoleRow::read(other).ok()?.rules {
                if !gathered.contains(&rule) {
                    gathered.push(rule);
                }
            }
        }
    }
    Some(gathered)
}
