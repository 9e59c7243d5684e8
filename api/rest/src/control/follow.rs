//! Kinds as the watch cache holds them, for the view of the controllers.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, future};
use nautilus_control::{Body, Item, Told};
use nautilus_machinery::resource;
use nautilus_machinery::selector::{FieldSelector, LabelSelector};
use nautilus_planner::kind::Kind;
use nautilus_planner::view::Key;
use serde_json::Value;

use crate::cache::{Delivery, Entry, Happened, Keyed as _, Selection, Subscription};
use crate::context::RestContext;
use crate::storage::Storage;

/// An entry of the cache, whose bytes are shared with every reader of the API.
struct Cached(Arc<Entry>);

impl Body for Cached {
    fn object(&self) -> Option<Value> {
        self.0.object(self.0.revision()).ok()
    }
}

fn key(entry: &Entry) -> Key {
    match entry.key().split_once('/') {
        Some((namespace, name)) => Key::new(namespace, name),
        None => Key::new("", entry.key()),
    }
}

fn item(entry: &Arc<Entry>) -> Item {
    Item {
        key: key(entry),
        revision: entry.revision(),
        body: Arc::new(Cached(entry.clone())),
    }
}

fn told((happened, change): &Delivery) -> Option<Told> {
    match happened {
        Happened::Deleted => {
            let before = change.before.as_ref()?;
            Some(Told::Gone(key(before), change.revision()))
        }
        Happened::Added | Happened::Modified => change.after.as_ref().map(item).map(Told::Put),
    }
}

/// See [`nautilus_control::Api::follow`].
pub(super) fn follow(
    context: Arc<RestContext>,
    storage: Storage,
    kind: Kind,
) -> BoxStream<'static, Told> {
    let begun = async move { begin(&context, &storage, kind).await };
    stream::once(begun)
        .filter_map(future::ready)
        .flat_map(|(begin, subscription)| {
            let first = stream::once(future::ready(begin));
            let rest = stream::unfold(subscription, |mut subscription| async move {
                let next = future::poll_fn(|context| subscription.poll_next(context));
                let deliveries: VecDeque<Delivery> = next.await?;
                let told: Vec<Told> = deliveries.iter().filter_map(told).collect();
                Some((stream::iter(told), subscription))
            });
            first.chain(rest.flatten())
        })
        .boxed()
}

/// The state of a kind behind a barrier, and what comes after it.
async fn begin(
    context: &RestContext,
    storage: &Storage,
    kind: Kind,
) -> Option<(Told, Subscription)> {
    let resource = resource::find(kind.group, kind.version, kind.plural)?;
    let revision = storage.barrier().await.ok()?;
    let collection = context.caches.of(resource);
    if !collection.reach(revision).await {
        tracing::warn!(
            kind = kind.kind,
            "controllers wait: the cache of this kind does not follow the store"
        );
        return None;
    }
    let (labels, fields) = (LabelSelector::default(), FieldSelector::default());
    let selection = Selection::new(resource, None, &labels, &fields);
    let (snapshot, subscription) = collection.subscribe(&Arc::new(selection))?;
    let mut items = Vec::with_capacity(snapshot.tree.len());
    for entry in snapshot.tree.cursor("") {
        items.push(item(&entry));
    }
    Some((Told::Begin(items, snapshot.revision), subscription))
}
