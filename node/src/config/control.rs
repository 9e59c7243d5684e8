//! Which controllers run while the node leads, what they have to give, and the scheduler's
//! profiles.

use std::path::Path;

use nautilus_rest::{ControlSettings, PodRanges};
use serde_json::Value;

use super::{ConfigError, Settings};

/// Checks what was said; everything runs where nothing was, by the default profile.
pub(super) fn control(said: &Settings) -> Result<ControlSettings, ConfigError> {
    let mut settings = ControlSettings {
        pod_ranges: pod_ranges(said)?,
        ..ControlSettings::default()
    };
    if let Some(controllers) = &said.controllers {
        known(controllers)?;
        settings.controllers.clone_from(controllers);
    }
    match &said.scheduler_config {
        None => Ok(settings),
        Some(path) => with_scheduler(settings, path),
    }
}

fn known(controllers: &[String]) -> Result<(), ConfigError> {
    let known = ControlSettings::names();
    let wrong = |own: &&String| {
        let name = own.strip_prefix('-').unwrap_or(own);
        name != "*" && !known.contains(&name)
    };
    match controllers.iter().find(wrong) {
        None => Ok(()),
        Some(unknown) => Err(ConfigError::invalid(
            "controllers",
            unknown,
            "no controller has this name",
            "write \"*\", \"-*\" for none, a name or -NAME; the names are those of kube-controller-manager, and kube-scheduler",
        )),
    }
}

fn with_scheduler(settings: ControlSettings, path: &Path) -> Result<ControlSettings, ConfigError> {
    let wrong = |what: String| {
        ConfigError::invalid(
            "scheduler_config",
            path.display(),
            what,
            "name a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) in YAML",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let configuration: Value =
        serde_yaml_ng::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if configuration["kind"] != "KubeSchedulerConfiguration" {
        return Err(wrong("it is of another kind".to_owned()));
    }
    settings.with_scheduler(&configuration).map_err(wrong)
}

/// The ranges of which nodes get parts; `None` where there are none.
fn pod_ranges(said: &Settings) -> Result<Option<PodRanges>, ConfigError> {
    let Some(cluster) = said.cluster_cidrs.as_deref().filter(|own| !own.is_empty()) else {
        return Ok(None);
    };
    let (v4_bits, v6_bits) = (said.node_cidr_bits_ipv4, said.node_cidr_bits_ipv6);
    PodRanges::parse(cluster, v4_bits, v6_bits)
        .map(Some)
        .map_err(|why| {
            ConfigError::invalid(
                "cluster_cidrs",
                cluster.join(","),
                why,
                "write one range of a family, and no more than 65,536 parts of each",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_come_from_a_file_that_is_what_it_should_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scheduler.yaml");
        let said = |path: &Path| Settings {
            scheduler_config: Some(path.to_owned()),
            ..Settings::default()
        };
        let profile = "profiles:\n- schedulerName: a\n- schedulerName: b\n";
        for (kind, rest, expected) in [
            ("KubeSchedulerConfiguration", profile, Some(2)),
            ("KubeSchedulerConfiguration", "", Some(1)),
            ("Another", profile, None),
            (
                "KubeSchedulerConfiguration",
                "profiles:\n- {}\n- {}\n",
                None,
            ),
        ] {
            std::fs::write(&path, format!("kind: {kind}\n{rest}")).expect("a file");
            let settings = control(&said(&path));
            let profiles = settings.ok().map(|own| own.profiles.len());
            assert_eq!(profiles, expected, "{kind} {rest}");
        }
        let missing = control(&said(&folder.path().join("none")));
        assert!(missing.is_err());
    }
}
