//! The fields that a way in does not write, and so nobody owns through it: `status`
//! through the object itself, `spec` through `status`.

use crate::set::Set;

/// Which fields are left out of what a request changes.
#[derive(Debug, Clone, Default)]
pub enum Reset {
    /// None.
    #[default]
    Nothing,
    /// These, and what is below them.
    Fields(Set),
}

impl Reset {
    /// Leaves out these dotted paths.
    pub fn fields(paths: &[&str]) -> Self {
        Self::Fields(Set::of_fields(paths))
    }

    /// The set without the fields that are reset.
    #[must_use]
    pub fn filter(&self, set: Set) -> Set {
        match self {
            Self::Nothing => set,
            Self::Fields(fields) => set.recursive_difference(fields),
        }
    }
}
