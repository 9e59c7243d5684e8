//! Where requests are recorded, and by which policy.

use std::time::Duration;

use nautilus_rest::audit::LogFile;

use super::check::existing;
use super::{Audit, AuditSettings, ConfigError};

pub(super) fn audit(settings: AuditSettings) -> Result<Option<Audit>, ConfigError> {
    const MEGABYTE: u64 = 1024 * 1024;
    let (policy_file, path) = match (settings.policy_file, settings.log_path) {
        (Some(policy_file), Some(path)) => (policy_file, path),
        (None, None) => return Ok(None),
        (Some(policy_file), None) => {
            return Err(ConfigError::invalid(
                "audit.policy_file",
                policy_file.display(),
                "nothing says where events go",
                "name audit.log_path too",
            ));
        }
        (None, Some(path)) => {
            return Err(ConfigError::invalid(
                "audit.log_path",
                path.display(),
                "no policy says what is recorded",
                "name audit.policy_file too",
            ));
        }
    };
    Ok(Some(Audit {
        policy_file: existing("audit.policy_file", policy_file)?,
        log: LogFile {
            path,
            max_bytes: settings.log_maxsize.unwrap_or(100).saturating_mul(MEGABYTE),
            max_backups: settings.log_maxbackup.unwrap_or(0),
            max_age: Duration::from_secs(settings.log_maxage.unwrap_or(0).saturating_mul(86_400)),
        },
    }))
}
