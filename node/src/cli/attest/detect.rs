//! `nautilus attest detect`: which TEE is here, and which one a node would take.

use clap::Args;
use nautilus_attest_tee::{Detection, Machine, Sighting};
use serde_json::{Value, json};

use crate::cli::{Output, print};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
The first kind found is the one that attestation.provider = \"auto\" takes. Reading a
measurement asks the TEE for evidence once, and may need root.

Examples:
  nautilus attest detect
  nautilus attest detect --output json | jq -r .chosen";

/// `nautilus attest detect`.
#[derive(Args)]
pub(crate) struct DetectArgs {
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Looks, and prints what it saw.
pub(super) fn run(arguments: &DetectArgs) -> anyhow::Result<()> {
    let detection = Machine::this().detect();
    match arguments.output {
        Output::Table => print(&table(&detection)),
        Output::Json => print(&serde_json::to_string_pretty(&document(&detection))?),
    }
    Ok(())
}

fn document(detection: &Detection) -> Value {
    let kinds: Vec<Value> = detection
        .sightings
        .iter()
        .map(|sighting| {
            json!({
                "kind": sighting.kind,
                "found": sighting.interface.is_some(),
                "interface": sighting.interface,
                "measurement": sighting.measurement,
                "platform": sighting.platform,
                "reason": sighting.reason,
            })
        })
        .collect();
    json!({ "chosen": detection.chosen, "kinds": kinds })
}

fn table(detection: &Detection) -> String {
    let mut text = format!("{:<10}{:<8}{}\n", "KIND", "FOUND", "DETAILS");
    for sighting in &detection.sightings {
        let found = if sighting.interface.is_some() {
            "yes"
        } else {
            "no"
        };
        for (index, line) in details(sighting).iter().enumerate() {
            text += &if index == 0 {
                format!("{:<10}{found:<8}{line}\n", sighting.kind.name())
            } else {
                format!("{:<18}{line}\n", "")
            };
        }
    }
    text += &match detection.chosen {
        Some(kind) => format!("\nattestation.provider = \"auto\" takes {kind}"),
        None => "\nno hardware TEE: attestation.provider = \"auto\" refuses to start here; a \
                 development quorum needs \"simulated\" and allow_simulated = true"
            .to_owned(),
    };
    text
}

fn details(sighting: &Sighting) -> Vec<String> {
    let named = [
        ("by", sighting.interface.clone()),
        (
            "measurement",
            sighting.measurement.as_ref().map(ToString::to_string),
        ),
        ("platform", sighting.platform.clone()),
    ];
    let mut lines: Vec<String> = named
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} {value}")))
        .collect();
    lines.extend(sighting.reason.clone());
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nautilus_attest_protocol::{Measurement, TeeKind};

    use super::*;

    fn world() -> Detection {
        Detection {
            sightings: vec![
                Sighting {
                    kind: TeeKind::Nitro,
                    interface: None,
                    measurement: None,
                    platform: None,
                    reason: Some("there is no /dev/nsm".into()),
                },
                Sighting {
                    kind: TeeKind::Snp,
                    interface: Some("configfs-tsm".into()),
                    measurement: Measurement::new([0xab; 4]).ok(),
                    platform: Some("c1c1".into()),
                    reason: None,
                },
            ],
            chosen: Some(TeeKind::Snp),
        }
    }

    #[test]
    fn the_table_names_each_kind_and_the_choice() {
        expect![[r#"
            KIND      FOUND   DETAILS
            nitro     no      there is no /dev/nsm
            snp       yes     by configfs-tsm
                              measurement abababab
                              platform c1c1

            attestation.provider = "auto" takes snp"#]]
        .assert_eq(&table(&world()));
    }

    #[test]
    fn the_document_has_a_field_for_everything() {
        let document = document(&world());
        assert_eq!(document["chosen"], "snp");
        assert_eq!(document["kinds"][1]["measurement"], "abababab");
        assert_eq!(document["kinds"][0]["found"], false);
        assert_eq!(document["kinds"][0]["interface"], Value::Null);
    }
}
