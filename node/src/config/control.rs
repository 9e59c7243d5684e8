//! Which controllers run while the node leads, and the scheduler's profiles.

use std::path::Path;

use nautilus_rest::ControlSettings;
use serde_json::Value;

use super::ConfigError;

/// Checks what was said; everything runs where nothing was, by the default profile.
pub(super) fn control(
    said: Option<Vec<String>>,
    scheduler_config: Option<&Path>,
) -> Result<ControlSettings, ConfigError> {
    let mut settings = ControlSettings::default();
    if let Some(controllers) = said {
        known(&controllers)?;
        settings.controllers = controllers;
    }
    match scheduler_config {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_come_from_a_file_that_is_what_it_should_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scheduler.yaml");
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
            let settings = control(None, Some(&path));
            let profiles = settings.ok().map(|own| own.profiles.len());
            assert_eq!(profiles, expected, "{kind} {rest}");
        }
        let missing = control(None, Some(&folder.path().join("none")));
        assert!(missing.is_err());
    }
}
