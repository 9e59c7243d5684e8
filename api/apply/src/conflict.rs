//! Why an apply was refused, in the words that clients match.

use nautilus_machinery::status::{ApiError, Cause};

use crate::managed::Identity;
use crate::path::{Path, shown};
use crate::set::Set;

/// The reason of a cause that names a field another manager owns.
pub const FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";

/// A field that the configuration would change and another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Identity,
    /// The field.
    pub path: Path,
}

/// Why field management failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what the configuration would change, ordered by owner.
    #[error("{} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The configuration is not one for this object.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the type, or the object is damaged.
    #[error("{0}")]
    Failed(String),
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| Cause {
                    reason: FIELD_MANAGER_CONFLICT.to_owned(),
                    message: format!("conflict with {}", conflict.manager),
                    field: shown(&conflict.path),
                });
                ApiError::apply_conflict(message(&conflicts), causes.collect())
            }
            ApplyError::BadRequest(message) => ApiError::bad_request(message),
            ApplyError::Failed(message) => ApiError::unknown(message),
        }
    }
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.manager,
            shown(&only.path)
        );
    }
    let mut lines = Vec::new();
    let mut owner = None;
    for conflict in conflicts {
        if owner != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            owner = Some(&conflict.manager);
        }
        lines.push(format!("- {}", shown(&conflict.path)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// The fields in question, whoever owns them.
pub(crate) fn fields(conflicts: &[Conflict]) -> Set {
    conflicts
        .iter()
        .map(|conflict| conflict.path.clone())
        .collect()
}
