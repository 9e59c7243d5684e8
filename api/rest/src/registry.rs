//! The kinds this node serves: the built-in ones, and those made at run time.
//!
//! Invariants
//! - A request sees one generation of kinds from its first look to its last.
//! - A built-in kind is never hidden by one made at run time.
//! - Documents about the API are made of one generation, and made once for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use nautilus_machinery::discovery;
use nautilus_machinery::resource::{self, Index, Resource};
use parking_lot::Mutex;
use serde_json::Value;

/// One generation of kinds, and the documents made of it.
pub(crate) struct Served {
    /// Built-in kinds first, then the others in the order they were given.
    pub(crate) kinds: Index,
    /// Counts the changes; 0: the built-in kinds alone.
    pub(crate) generation: u64,
    /// By name; only documents that exist are kept, so their number is bounded by the
    /// kinds'.
    documents: Mutex<BTreeMap<String, Document>>,
}

/// A document and the entity tag of its bytes.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) content: Bytes,
    pub(crate) tag: String,
}

impl Document {
    pub(crate) fn new(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self {
            tag: discovery::entity_tag(&content),
            content,
        }
    }
}

impl Served {
    fn new(kinds: Vec<Arc<Resource>>, generation: u64) -> Self {
        Self {
            kinds: Index::new(kinds),
            generation,
            documents: Mutex::default(),
        }
    }

    /// The document of that name, made once; `None` if there is none.
    pub(crate) fn document(
        &self,
        name: &str,
        make: impl FnOnce(&Index) -> Option<Value>,
    ) -> Option<Document> {
        self.document_of(name, |kinds| Some(make(kinds)?.to_string().into_bytes()))
    }

    /// As [`Self::document`], of bytes.
    pub(crate) fn document_of(
        &self,
        name: &str,
        make: impl FnOnce(&Index) -> Option<Vec<u8>>,
    ) -> Option<Document> {
        if let Some(document) = self.documents.lock().get(name) {
            return Some(document.clone());
        }
        let document = Document::new(make(&self.kinds)?);
        let mut documents = self.documents.lock();
        documents.insert(name.to_owned(), document.clone());
        Some(document)
    }
}

/// See the module.
pub(crate) struct Registry {
    served: ArcSwap<Served>,
    /// The built-in ones, and what else this server answers always.
    lasting: Vec<Arc<Resource>>,
    /// Held while a generation is replaced.
    replacing: Mutex<()>,
}

impl Registry {
    /// The built-in kinds, and `more` that are answered as long as this node runs.
    pub(crate) fn new(more: Vec<Arc<Resource>>) -> Self {
        let lasting: Vec<_> = resource::all().iter().cloned().chain(more).collect();
        Self {
            served: ArcSwap::from_pointee(Served::new(lasting.clone(), 0)),
            lasting,
            replacing: Mutex::new(()),
        }
    }

    /// The present generation, for as long as one request or document needs it.
    pub(crate) fn served(&self) -> Guard<Arc<Served>> {
        self.served.load()
    }

    /// The present generation, to be held across waits.
    pub(crate) fn served_full(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// The kind at that group, version and plural name.
    #[cfg(test)]
    fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.served().kinds.find(group, version, plural).cloned()
    }

    /// Replaces the kinds made at run time by these; [`crate::RestContext::serve_kinds`]
    /// is what tells the caches too.
    pub(crate) fn set_dynamic(&self, dynamic: Vec<Arc<Resource>>) {
        let _one_at_a_time = self.replacing.lock();
        let generation = self.served().generation + 1;
        let kinds = self.lasting.iter().cloned().chain(dynamic).collect();
        self.served.store(Arc::new(Served::new(kinds, generation)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widgets(group: &str, plural: &str) -> Arc<Resource> {
        Arc::new(Resource {
            group: group.into(),
            version: "v1".into(),
            kind: "Widget".into(),
            plural: plural.into(),
            singular: "widget".into(),
            verbs: vec!["get".into(), "list".into()],
            ..Resource::default()
        })
    }

    #[test]
    fn a_kind_made_at_run_time_is_found_and_discovered_until_it_is_taken_away() {
        let registry = Registry::new(Vec::new());
        let list = |served: &Served| {
            served.document("apis/example.org/v1", |kinds| {
                discovery::api_resource_list(kinds, "example.org", "v1")
            })
        };
        assert!(list(&registry.served()).is_none());
        registry.set_dynamic(vec![widgets("example.org", "widgets")]);
        assert!(registry.find("example.org", "v1", "widgets").is_some());
        let text = list(&registry.served()).expect("discovered").content;
        assert!(String::from_utf8_lossy(&text).contains("\"kind\":\"Widget\""));
        registry.set_dynamic(Vec::new());
        assert!(registry.find("example.org", "v1", "widgets").is_none());
        assert!(list(&registry.served()).is_none());
        assert_eq!(registry.served().generation, 2);
    }

    #[tokio::test]
    async fn documents_follow_the_kinds_made_at_run_time() {
        let registry = Registry::new(Vec::new());
        let documents = crate::documents::Documents::default();
        let headers = http::HeaderMap::new();
        let uri = http::Uri::from_static("/openapi/v3/apis/example.org/v1");
        let ask = || async {
            let served = registry.served_full();
            let path = "apis/example.org/v1";
            let answer = documents.document(&served, path, &headers, &uri).await;
            answer.map(|answer| answer.status())
        };
        assert!(ask().await.is_err());
        registry.set_dynamic(vec![widgets("example.org", "widgets")]);
        assert_eq!(ask().await.ok(), Some(http::StatusCode::OK));
        let served = registry.served_full();
        assert!(documents.v2(&served, &headers).await.is_ok());
        registry.set_dynamic(Vec::new());
        assert!(ask().await.is_err());
    }

    #[test]
    fn a_built_in_kind_is_not_hidden() {
        let registry = Registry::new(Vec::new());
        registry.set_dynamic(vec![widgets("", "pods")]);
        assert_eq!(registry.find("", "v1", "pods").expect("served").kind, "Pod");
    }
}
