//! A controller on kube-rs's runtime, its reflector and its finalizers, which go on whatever
//! happens to the nodes.
//!
//! Prints `lives` once the controller has settled a boat of its own; then the test kills a
//! node, makes a boat named `tender` and deletes it. Prints `launched NAME` and
//! `scrapped NAME` for what the controller did about it, each once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Boat, BoatSpec, NAMESPACE, PATIENCE, define, gone};

const FINALIZER: &str = "kubers.example.org/scrap";
/// How long others have to kill a node, and the controller to go on.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(120);

struct World {
    client: Client,
    /// What was said already.
    said: Mutex<BTreeSet<String>>,
    /// The same, for who waits for it; holds as many as are ever said.
    news: mpsc::Sender<String>,
}

impl World {
    /// Notes what was done, the first time that it was.
    fn say(&self, what: &str, boat: &Boat) {
        let line = format!("{what} {}", boat.name_any());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(line.clone()) {
            let _ = self.news.try_send(line);
        }
    }
}

pub async fn lives(client: &Client) -> anyhow::Result<()> {
    define(client).await?;
    let boats: Api<Boat> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let (news, mut said) = mpsc::channel(64);
    let world = Arc::new(World {
        client: client.clone(),
        said: Mutex::default(),
        news,
    });
    let controller = Controller::new(boats.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, again, world)
        .for_each(|_| std::future::ready(()));
    let controller = tokio::spawn(controller);
    let (store, writer) = reflector::store();
    let listed = watcher::Config::default().labels("boat");
    let mirror = reflector::reflector(writer, watcher(maps.clone(), listed))
        .default_backoff()
        .for_each(|_| std::future::ready(()));
    let mirror = tokio::spawn(mirror);

    let own = Boat::new("ferry", BoatSpec { seats: 2 });
    boats.create(&PostParams::default(), &own).await?;
    expect(&mut said, "launched ferry").await?;
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await??;
    mirrors(&store, &maps, 1).await?;

    // What another takes away is put back.
    let log = maps.get("ferry").await?;
    maps.delete("ferry", &DeleteParams::default()).await?;
    gone(&maps, &log).await?;
    mirrors(&store, &maps, 1).await?;
    println!("lives");

    for line in ["launched tender", "scrapped tender"] {
        expect(&mut said, line).await?;
        println!("{line}");
    }
    mirrors(&store, &maps, 1).await?;
    let ferry = boats.get("ferry").await?;
    ensure!(ferry.status.as_ref().is_some_and(|status| status.afloat));
    boats.delete("ferry", &DeleteParams::foreground()).await?;
    gone(&boats, &ferry).await?;
    mirrors(&store, &maps, 0).await?;
    controller.abort();
    mirror.abort();
    Ok(())
}

async fn expect(said: &mut mpsc::Receiver<String>, wanted: &str) -> anyhow::Result<()> {
    let next = tokio::time::timeout(LIFETIME, said.recv()).await;
    let next = next.with_context(|| format!("nothing instead of {wanted}"))?;
    ensure!(next.as_deref() == Some(wanted), "{next:?}, not {wanted}");
    Ok(())
}

/// Waits until the mirror has what a consistent list has: `count` boats' maps.
async fn mirrors(
    store: &Store<ConfigMap>,
    maps: &Api<ConfigMap>,
    count: usize,
) -> anyhow::Result<()> {
    let version = |map: &ConfigMap| (map.name_any(), map.resource_version());
    let equal = async {
        loop {
            let listed = maps.list(&ListParams::default().labels("boat")).await?;
            let listed: BTreeSet<_> = listed.items.iter().map(version).collect();
            let mirrored: BTreeSet<_> = store.state().iter().map(|map| version(map)).collect();
            if listed == mirrored && listed.len() == count {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(LIFETIME, equal).await;
    outcome.with_context(|| format!("not {count} maps, but {:?}", store.state()))?
}

async fn reconcile(
    boat: Arc<Boat>,
    world: Arc<World>,
) -> Result<Action, finalizer::Error<kube::Error>> {
    let boats: Api<Boat> = Api::namespaced(world.client.clone(), NAMESPACE);
    finalizer(&boats, FINALIZER, boat, |event| async {
        match event {
            Event::Apply(boat) => launch(&boat, &world).await,
            Event::Cleanup(boat) => {
                world.say("scrapped", &boat);
                Ok(Action::await_change())
            }
        }
    })
    .await
}

/// A map for the boat, owned by it, and the boat's status, both applied.
async fn launch(boat: &Boat, world: &World) -> kube::Result<Action> {
    let name = boat.name_any();
    let apply = PatchParams::apply("kubers").force();
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), NAMESPACE);
    let owner = boat.controller_owner_ref(&());
    let log = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "boat": name }, "ownerReferences": [owner] },
        "data": { "seats": boat.spec.seats.to_string() },
    });
    maps.patch(&name, &apply, &Patch::Apply(log)).await?;
    let boats: Api<Boat> = Api::namespaced(world.client.clone(), NAMESPACE);
    let status = json!({
        "apiVersion": Boat::api_version(&()), "kind": Boat::kind(&()),
        "status": { "afloat": true },
    });
    boats
        .patch_status(&name, &apply, &Patch::Apply(status))
        .await?;
    world.say("launched", boat);
    Ok(Action::await_change())
}

fn again(_: Arc<Boat>, _: &finalizer::Error<kube::Error>, _: Arc<World>) -> Action {
    Action::requeue(std::time::Duration::from_millis(200))
}
