//! The versions in which webhooks are asked: `AdmissionReview` and `ConversionReview` have
//! the same, with the same fields.

/// A version of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewVersion {
    /// An answer names its version, its kind and the request it answers.
    V1,
    /// Nothing of that is looked at.
    V1Beta1,
}

impl ReviewVersion {
    /// The first of a webhook's versions that is known here.
    pub fn first_known<'a>(mut versions: impl Iterator<Item = &'a str>) -> Option<Self> {
        versions.find_map(|version| match version {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        })
    }

    /// As in `admission.k8s.io/v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_version_is_spoken() {
        let spoken = |versions: &[&str]| ReviewVersion::first_known(versions.iter().copied());
        assert_eq!(
            spoken(&["v2", "v1beta1", "v1"]),
            Some(ReviewVersion::V1Beta1)
        );
        assert_eq!(spoken(&["v1", "v1beta1"]), Some(ReviewVersion::V1));
        assert_eq!(spoken(&["v2"]), None);
    }
}
