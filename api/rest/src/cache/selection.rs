//! What a list or watch asks for, put to an entry's index: no object is read for it.

use nautilus_machinery::resource::Resource;
use nautilus_machinery::selector::{FieldSelector, LabelSelector};

use super::entry::Entry;

/// The namespace, labels and fields wanted of a kind's objects.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    namespace: Option<String>,
    labels: LabelSelector,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone)]
struct FieldTerm {
    /// The field's place among the kind's.
    field: usize,
    equal: bool,
    value: String,
}

/// The narrowest part of a kind's objects that a selection can be looked up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    Everything,
    Namespace(String),
    /// One object, by its key.
    Object(String),
    /// Those whose field, by its place, has this text.
    Field(usize, String),
}

impl Selection {
    /// Of `resource`, in one namespace or in all.
    pub(crate) fn new(
        resource: &Resource,
        namespace: Option<&str>,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) -> Self {
        let place = |label: &str| {
            resource
                .selectable
                .iter()
                .position(|own| own.label == label)
        };
        let terms = fields.terms().filter_map(|(label, equal, value)| {
            Some(FieldTerm {
                field: place(label)?,
                equal,
                value: value.to_owned(),
            })
        });
        Self {
            namespace: namespace.filter(|_| resource.namespaced).map(str::to_owned),
            labels: labels.clone(),
            fields: terms.collect(),
        }
    }

    /// Whether it lets every object of its namespace through.
    pub(crate) fn is_open(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// What the keys of all selected objects begin with.
    pub(crate) fn prefix(&self) -> String {
        self.namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("{namespace}/"))
    }

    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        let namespace = self.namespace.as_deref();
        (namespace.is_none() || namespace == entry.namespace())
            && self
                .fields
                .iter()
                .all(|term| (**entry.field(term.field) == *term.value) == term.equal)
            && self.labels.matches_labels(|name| entry.label(name))
    }

    /// The key of the only object that can be selected.
    pub(crate) fn only(&self, resource: &Resource) -> Option<String> {
        let name = self.exact(resource, "metadata.name")?;
        if !resource.namespaced {
            return Some(name.to_owned());
        }
        let in_field = || self.exact(resource, "metadata.namespace");
        let namespace = self.namespace.as_deref().or_else(in_field)?;
        Some(format!("{namespace}/{name}"))
    }

    fn exact(&self, resource: &Resource, label: &str) -> Option<&str> {
        let named =
            |term: &&FieldTerm| term.equal && resource.selectable[term.field].label == label;
        self.fields
            .iter()
            .find(named)
            .map(|term| term.value.as_str())
    }

    pub(super) fn interest(&self, resource: &Resource) -> Interest {
        if let Some(key) = self.only(resource) {
            return Interest::Object(key);
        }
        let own = |term: &&FieldTerm| {
            term.equal && resource.selectable[term.field].label != "metadata.namespace"
        };
        if let Some(term) = self.fields.iter().find(own) {
            return Interest::Field(term.field, term.value.clone());
        }
        match &self.namespace {
            Some(namespace) => Interest::Namespace(namespace.clone()),
            None => Interest::Everything,
        }
    }
}
