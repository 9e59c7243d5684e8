//! `nautilus attest verify`: a stranger's check of a running quorum.

use clap::Args;

use crate::attested::{Address, JudgeArgs, Outcome, Survey, survey};
use crate::cli::status::table;
use crate::cli::{Global, Output, print};
use crate::exit::Failure;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Each node signs a fresh nonce and the very key it serves with; the verdict is made here, without
asking anybody else. Members are learned from accepted nodes only, and each is asked itself.

Exit codes: 0 every member is accepted; 3 one does not answer; 4 one is refused.

Examples:
  nautilus attest verify 10.0.0.1:6443 --measurement snp:8f3a.. --measurement tdx:77b0..
  nautilus attest verify https://10.0.0.1:6443 --policy policy.toml --output json
  nautilus attest verify 127.0.0.1:7443 --dir q --allow-simulated      made by `up --dir q`";

/// Characters of a measurement or platform in the table.
const SHORT: usize = 16;

/// `nautilus attest verify`.
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Where one member, or the endpoint before them, serves
    #[arg(value_name = "HOST:PORT")]
    address: Address,
    #[command(flatten)]
    judge: JudgeArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Asks everybody and says what came of it.
pub(super) async fn run(global: &Global, arguments: VerifyArgs) -> anyhow::Result<()> {
    let root_key = global.layout()?.simulated_root_key();
    let judge = arguments.judge.judge(&root_key, false)?;
    let survey = survey(&arguments.address, &judge).await;
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&survey)?),
        Output::Table => print(&to_table(&survey)),
    }
    let of = |outcome| survey.members.iter().filter(move |m| m.outcome == outcome);
    match survey.outcome {
        Outcome::Accepted => Ok(()),
        Outcome::Refused => Err(Failure::Refused.error(format!(
            "{} of {} members are refused: do not trust this quorum",
            of(Outcome::Refused).count(),
            survey.members.len()
        ))),
        Outcome::Unreachable => Err(Failure::Unavailable.error(format!(
            "{} of {} members do not answer: nothing is known of them",
            of(Outcome::Unreachable).count(),
            survey.members.len()
        ))),
    }
}

fn to_table(survey: &Survey) -> String {
    let short = |text: &str| text.get(..SHORT).unwrap_or(text).to_owned();
    let dash = || "-".to_owned();
    let rows = survey.members.iter().map(|member| {
        let evidence = member.evidence.as_ref();
        vec![
            member.id.map_or_else(dash, |id| id.to_string()),
            member.outcome.name().to_owned(),
            evidence.map_or_else(dash, |shown| shown.tee.to_string()),
            evidence.map_or_else(dash, |shown| short(&shown.measurement)),
            evidence.map_or_else(dash, |shown| short(&shown.platform)),
            evidence.map_or_else(dash, |shown| shown.tcb_status.to_owned()),
            evidence
                .filter(|shown| !shown.advisories.is_empty())
                .map_or_else(dash, |shown| shown.advisories.join(",")),
            member.role.clone().unwrap_or_else(dash),
            member.address.clone(),
        ]
    });
    let header = [
        "NODE",
        "VERDICT",
        "TEE",
        "MEASUREMENT",
        "PLATFORM",
        "TCB",
        "ADVISORIES",
        "ROLE",
        "ADDRESS",
    ];
    let mut text = table(&header, rows);
    for member in &survey.members {
        if let Some(reason) = &member.reason {
            text.push_str(&format!("\n{}: {reason}", member.address));
        }
    }
    let mut open: Vec<&str> = survey
        .members
        .iter()
        .filter_map(|member| member.evidence.as_ref())
        .flat_map(|shown| shown.not_checked.iter().copied())
        .collect();
    open.sort_unstable();
    open.dedup();
    for what in open {
        text.push_str(&format!("\nnot checked: {what}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use nautilus_attest_protocol::TeeKind;

    use super::*;
    use crate::attested::{Shown, Verdict};

    fn sample() -> Survey {
        Survey {
            cluster: Some("q".into()),
            outcome: Outcome::Unreachable,
            members: vec![
                Verdict {
                    id: Some(1),
                    address: "https://10.0.0.1:6443".into(),
                    role: Some("voter".into()),
                    outcome: Outcome::Accepted,
                    reason: None,
                    evidence: Some(Shown {
                        tee: TeeKind::Tdx,
                        measurement: "ab".repeat(48),
                        platform: "cd".repeat(16),
                        tcb_status: "SwHardeningNeeded",
                        advisories: vec!["INTEL-SA-00615".into()],
                        tcb_components: BTreeMap::from([("pcesvn".to_owned(), 11)]),
                        policy: "allowed".into(),
                        serving_key_sha256: "ef".repeat(32),
                        evidence_sha256: "01".repeat(32),
                        not_checked: vec!["members that no accepted member names"],
                    }),
                },
                Verdict {
                    id: Some(2),
                    address: "https://10.0.0.2:6443".into(),
                    role: Some("voter".into()),
                    outcome: Outcome::Unreachable,
                    reason: Some("Connection refused (os error 111)".into()),
                    evidence: None,
                },
            ],
        }
    }

    #[test]
    fn the_table_says_why_and_what_is_open() {
        expect![[r#"
            NODE  VERDICT      TEE  MEASUREMENT       PLATFORM          TCB                ADVISORIES      ROLE   ADDRESS
            1     accepted     tdx  abababababababab  cdcdcdcdcdcdcdcd  SwHardeningNeeded  INTEL-SA-00615  voter  https://10.0.0.1:6443
            2     unreachable  -    -                 -                 -                  -               voter  https://10.0.0.2:6443

            https://10.0.0.2:6443: Connection refused (os error 111)
            not checked: members that no accepted member names"#]]
        .assert_eq(&to_table(&sample()));
    }

    #[test]
    fn the_json_form_has_exactly_the_agreed_fields() {
        let json = serde_json::to_value(sample()).expect("plain data");
        let member = json["members"][0].as_object().expect("an object");
        let fields: Vec<&str> = member.keys().map(String::as_str).collect();
        expect![[r#"
            id address role outcome reason tee measurement platform tcb_status advisories tcb_components policy serving_key_sha256 evidence_sha256 not_checked"#]]
        .assert_eq(&fields.join(" "));
        assert_eq!(json["outcome"], "unreachable");
        assert_eq!(
            json["members"][1]["reason"],
            "Connection refused (os error 111)"
        );
    }
}
