//! Which controllers run while the node leads.

use nautilus_rest::ControlSettings;

use super::ConfigError;

/// Checks what was said; everything runs where nothing was.
pub(super) fn control(said: Option<Vec<String>>) -> Result<ControlSettings, ConfigError> {
    let Some(controllers) = said else {
        return Ok(ControlSettings::default());
    };
    let known = ControlSettings::names();
    let wrong = |own: &&String| {
        let name = own.strip_prefix('-').unwrap_or(own);
        name != "*" && !known.contains(&name)
    };
    match controllers.iter().find(wrong) {
        None => Ok(ControlSettings { controllers }),
        Some(unknown) => Err(ConfigError::invalid(
            "controllers",
            unknown,
            "no controller has this name",
            "write \"*\", \"-*\" for none, a name or -NAME; the names are those of kube-controller-manager, and kube-scheduler",
        )),
    }
}
