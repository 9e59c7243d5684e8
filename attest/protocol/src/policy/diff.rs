//! What a change changes, in lines for people.

use super::document::Policy;

/// The lines that only `from` has (`- `) and those that only `to` has (`+ `), in the
/// order of the document. Empty when nothing but the epoch differs.
pub fn differences(from: &Policy, to: &Policy) -> Vec<String> {
    let (before, after) = (lines(from), lines(to));
    let gone = before.iter().filter(|line| !after.contains(line));
    let come = after.iter().filter(|line| !before.contains(line));
    gone.map(|line| format!("- {line}"))
        .chain(come.map(|line| format!("+ {line}")))
        .collect()
}

/// Everything a policy says, one fact a line.
fn lines(policy: &Policy) -> Vec<String> {
    let evidence = &policy.evidence;
    let mut lines = vec![format!("simulated evidence: {}", evidence.allow_simulated)];
    for (tee, rules) in &evidence.kinds {
        for allowed in &rules.measurements {
            let mut line = format!("{tee} measurement {}", allowed.measurement);
            if !allowed.name.is_empty() {
                line.push_str(&format!(" ({})", allowed.name));
            }
            if let Some(from) = allowed.not_before_ms {
                line.push_str(&format!(" from {from} ms"));
            }
            if let Some(until) = allowed.not_after_ms {
                line.push_str(&format!(" until {until} ms"));
            }
            lines.push(line);
        }
        for (component, version) in &rules.minimum_tcb {
            lines.push(format!("{tee} component {component} at least {version}"));
        }
        for status in &rules.accepted_statuses {
            lines.push(format!("{tee} status {status}"));
        }
        for advisory in &rules.accepted_advisories {
            lines.push(format!("{tee} advisory {advisory}"));
        }
    }
    if let Some(rule) = policy.diversity {
        lines.push(format!("vendor faults borne: {}", rule.vendor_faults));
    }
    lines.push(format!("threshold: {}", policy.threshold));
    for operator in &policy.operators {
        lines.push(format!(
            "operator {} sha256:{}",
            operator.name,
            operator.public_key.fingerprint()
        ));
    }
    lines
}
