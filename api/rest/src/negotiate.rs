//! Which form of answer a client prefers, from its `Accept` header.

use http::HeaderMap;
use http::header::ACCEPT;
use nautilus_machinery::status::ApiError;

/// Media types of answers, in the order the reference names them.
pub(crate) const SERVED: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// Clauses of one `Accept` header that are read.
const MAX_CLAUSES: usize = 32;

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// What of the object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rendering {
    /// The object or list itself.
    Whole,
    /// `meta.k8s.io` `Table`, of this version.
    Table(&'static str),
    /// `meta.k8s.io` `PartialObjectMetadata` or its list, of this version.
    Metadata(&'static str),
}

/// The form agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) format: Format,
    pub(crate) rendering: Rendering,
}

impl Agreed {
    pub(crate) const JSON: Self = Self {
        format: Format::Json,
        rendering: Rendering::Whole,
    };
}

/// One clause of an `Accept` header.
#[derive(Debug, Default, Clone)]
pub(crate) struct Clause {
    pub(crate) media: String,
    pub(crate) parameters: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    /// A parameter's value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The header's clauses, best first; empty without a header.
pub(crate) fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(MAX_CLAUSES)
        .filter_map(parse_clause)
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn parse_clause(text: &str) -> Option<Clause> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts
        .next()
        .filter(|media| !media.is_empty())?
        .to_ascii_lowercase();
    let mut clause = Clause {
        media,
        parameters: Vec::new(),
        quality: 1.0,
    };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (
            key.trim().to_ascii_lowercase(),
            value.trim().trim_matches('"'),
        );
        if key == "q" {
            clause.quality = value.parse().unwrap_or(1.0);
        } else {
            clause.parameters.push((key, value.to_owned()));
        }
    }
    (clause.quality > 0.0).then_some(clause)
}

/// In what other shape an answer can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transforms {
    /// As it is alone: documents.
    None,
    /// Its metadata alone too: objects that are answered and not stored.
    Metadata,
    /// As a table besides: objects that are stored.
    Table,
}

/// Picks the first clause that can be served.
pub(crate) fn negotiate(headers: &HeaderMap, transforms: Transforms) -> Result<Agreed, ApiError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Agreed::JSON);
    }
    clauses
        .iter()
        .find_map(|clause| agree(clause, transforms))
        .ok_or_else(|| ApiError::not_acceptable(&SERVED))
}

/// The first clause that can be served by objects that have no protobuf.
pub(crate) fn without_protobuf(headers: &HeaderMap) -> Result<Agreed, ApiError> {
    clauses(headers)
        .iter()
        .filter_map(|clause| agree(clause, Transforms::Table))
        .find(|agreed| agreed.format != Format::Protobuf || agreed.rendering != Rendering::Whole)
        .ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))
}

fn agree(clause: &Clause, transforms: Transforms) -> Option<Agreed> {
    let format = match clause.media.as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        "application/vnd.kubernetes.protobuf" => Format::Protobuf,
        _ => return None,
    };
    let Some(kind) = clause.parameter("as") else {
        return Some(Agreed {
            format,
            rendering: Rendering::Whole,
        });
    };
    if clause.parameter("g") != Some("meta.k8s.io") {
        return None;
    }
    let version = match clause.parameter("v") {
        Some("v1") => "v1",
        Some("v1beta1") => "v1beta1",
        _ => return None,
    };
    let rendering = match kind {
        // A table has no protobuf form.
        "Table" if format != Format::Protobuf && transforms == Transforms::Table => {
            Rendering::Table(version)
        }
        "PartialObjectMetadata" | "PartialObjectMetadataList"
            if transforms >= Transforms::Metadata =>
        {
            Rendering::Metadata(version)
        }
        _ => return None,
    };
    Some(Agreed { format, rendering })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(accept: &str) -> Result<Agreed, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        negotiate(&headers, Transforms::Table)
    }

    #[test]
    fn kubectl_get_prefers_the_newest_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                      application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let expected = Agreed {
            format: Format::Json,
            rendering: Rendering::Table("v1"),
        };
        assert_eq!(agreed(accept).expect("served"), expected);
    }

    #[test]
    fn quality_decides_before_order() {
        let accept = "application/json;q=0.5, application/yaml";
        assert_eq!(agreed(accept).expect("served").format, Format::Yaml);
    }

    #[test]
    fn what_is_not_stored_is_no_table() {
        let mut headers = HeaderMap::new();
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        let refused = negotiate(&headers, Transforms::Metadata).expect_err("not served");
        assert_eq!(refused.code(), 406);
        let accept = format!("{accept}, application/json");
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        assert_eq!(negotiate(&headers, Transforms::Metadata), Ok(Agreed::JSON));
    }

    #[test]
    fn an_unknown_media_type_is_not_acceptable() {
        assert_eq!(agreed("text/html").expect_err("not served").code(), 406);
    }
}
