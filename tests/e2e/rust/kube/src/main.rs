//! kube-rs against the Kubernetes API, by the kubeconfig of the first argument.
//!
//! Prints one line a part, and ok at last. In its last part a controller runs until somebody
//! else has made and deleted a boat named `tender` ([`lives`]).

mod lives;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, CustomResource, CustomResourceExt as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const NAMESPACE: &str = "kubers";
/// Long enough for anything that should happen at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a boat is to be.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(
    group = "kubers.example.org",
    version = "v1",
    kind = "Boat",
    namespaced
)]
#[kube(status = "BoatStatus", shortname = "bt")]
#[kube(printcolumn(name = "Seats", type_ = "integer", json_path = ".spec.seats"))]
struct BoatSpec {
    /// How many it takes.
    #[schemars(range(min = 1, max = 9))]
    seats: u32,
}

/// What a boat is.
#[derive(Serialize, Deserialize, Clone, Debug, JsonSchema)]
struct BoatStatus {
    afloat: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("name a kubeconfig")?;
    let file = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    objects(&client).await.context("objects")?;
    watches(&client).await.context("watches")?;
    applies(&client).await.context("applies")?;
    patches(&client).await.context("patches")?;
    deletes(&client).await.context("deletes")?;
    definitions(&client).await.context("definitions")?;
    rights(&client).await.context("rights")?;
    lives::lives(&client).await.context("lives")?;
    println!("ok");
    Ok(())
}

fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.labels_mut().insert("l".to_owned(), "1".to_owned());
    object
}

/// The code of a refusal.
fn code<T>(outcome: kube::Result<T>) -> anyhow::Result<u16> {
    match outcome {
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("nothing was refused"),
    }
}

async fn objects(client: &Client) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let made = maps
        .create(&PostParams::default(), &config_map("a"))
        .await?;
    let again = maps.create(&PostParams::default(), &config_map("a")).await;
    ensure!(code(again)? == 409);
    ensure!(code(maps.get("none").await)? == 404);
    ensure!(maps.get_opt("none").await?.is_none());
    let mut changed = made.clone();
    changed.data = Some([("k".to_owned(), "v".to_owned())].into());
    let changed = maps.replace("a", &PostParams::default(), &changed).await?;
    ensure!(changed.resource_version() != made.resource_version());
    let stale = maps.replace("a", &PostParams::default(), &made).await;
    ensure!(code(stale)? == 409);
    let merge = Patch::Merge(json!({ "data": { "x": "y", "k": null } }));
    let patched = maps.patch("a", &PatchParams::default(), &merge).await?;
    ensure!(patched.data == Some([("x".to_owned(), "y".to_owned())].into()));
    for name in ["b", "c", "d"] {
        maps.create(&PostParams::default(), &config_map(name))
            .await?;
    }
    let mut asked = ListParams::default().labels("l=1").limit(3);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&asked).await?;
        ensure!(page.items.len() <= 3);
        let token = page.metadata.continue_.clone().unwrap_or_default();
        names.extend(page.items.iter().map(|item| item.name_any()));
        if token.is_empty() {
            break;
        }
        asked = asked.continue_token(&token);
    }
    ensure!(names == ["a", "b", "c", "d"], "{names:?}");
    println!("objects");
    Ok(())
}

/// A watcher that begins with a streamed list sees what is there, and then a change.
async fn watches(client: &Client) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().labels("l=1").streaming_lists();
    let stream = watcher(maps.clone(), config).applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let next = tokio::time::timeout(PATIENCE, stream.try_next()).await??;
        seen.push(next.context("the watch ended")?.name_any());
    }
    seen.sort();
    ensure!(seen == ["a", "b", "c", "d"], "{seen:?}");
    let more = config_map("e");
    maps.create(&PostParams::default(), &more).await?;
    let next = tokio::time::timeout(PATIENCE, stream.next()).await?;
    ensure!(next.context("the watch ended")??.name_any() == "e");
    println!("watches");
    Ok(())
}

async fn applies(client: &Client) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let wanted = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "applied" }, "data": { "k": value },
        }))
    };
    let first = PatchParams::apply("first");
    maps.patch("applied", &first, &wanted("1")).await?;
    let second = PatchParams::apply("second");
    let refused = maps.patch("applied", &second, &wanted("2")).await;
    ensure!(code(refused)? == 409);
    let taken = maps.patch("applied", &second.force(), &wanted("2")).await?;
    let managers: Vec<_> = taken
        .managed_fields()
        .iter()
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    ensure!(managers == ["second"], "{managers:?}");

    // What a manager no longer wants goes; the same again is no change; a dry run is none.
    let more = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "applied" }, "data": { "k": "2", "l": "3" },
    }));
    maps.patch("applied", &PatchParams::apply("second"), &more)
        .await?;
    let less = maps
        .patch("applied", &PatchParams::apply("second"), &wanted("2"))
        .await?;
    ensure!(less.data == Some([("k".to_owned(), "2".to_owned())].into()));
    let same = maps
        .patch("applied", &PatchParams::apply("second"), &wanted("2"))
        .await?;
    ensure!(same.resource_version() == less.resource_version());
    let dry = PatchParams::apply("second").dry_run();
    let tried = maps.patch("applied", &dry, &wanted("9")).await?;
    ensure!(tried.data == Some([("k".to_owned(), "9".to_owned())].into()));
    ensure!(maps.get("applied").await?.resource_version() == same.resource_version());
    println!("applies");
    Ok(())
}

/// Patches by strategy and by JSON Patch, of scales and metadata alone.
async fn patches(client: &Client) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let wanted: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "fleet" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "fleet" } },
            "template": {
                "metadata": { "labels": { "app": "fleet" } },
                "spec": { "containers": [
                    { "name": "a", "image": "registry.example/a:1" },
                    { "name": "b", "image": "registry.example/b:1" },
                ] },
            },
        },
    }))?;
    deployments.create(&PostParams::default(), &wanted).await?;
    let none = PatchParams::default();
    let strategic = Patch::Strategic(json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "b", "image": "registry.example/b:2" }, { "name": "a", "$patch": "delete" },
    ] } } } }));
    let patched = deployments.patch("fleet", &none, &strategic).await?;
    let template = patched.spec.template.spec.context("the pods' spec")?;
    let images: Vec<_> = template
        .containers
        .iter()
        .filter_map(|container| container.image.as_deref())
        .collect();
    ensure!(images == ["registry.example/b:2"], "{images:?}");

    let steps = |was: u32| {
        serde_json::from_value(json!([
            { "op": "test", "path": "/spec/replicas", "value": was },
            { "op": "replace", "path": "/spec/replicas", "value": 5 },
        ]))
    };
    let untrue = Patch::Json::<()>(steps(7)?);
    let refused = deployments.patch("fleet", &none, &untrue).await;
    ensure!(code(refused)? == 422);
    let json = Patch::Json::<()>(steps(2)?);
    let patched = deployments.patch("fleet", &none, &json).await?;
    ensure!(patched.spec.replicas == Some(5));

    let scale = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    deployments.patch_scale("fleet", &none, &scale).await?;
    let scale = deployments.get_scale("fleet").await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(3));

    let label = Patch::Merge(json!({ "metadata": { "labels": { "at": "sea" } } }));
    let metadata = deployments.patch_metadata("fleet", &none, &label).await?;
    ensure!(metadata.labels().get("at").is_some_and(|at| at == "sea"));
    let listed = deployments
        .list_metadata(&ListParams::default().labels("at=sea"))
        .await?;
    ensure!(listed.items.len() == 1);
    println!("patches");
    Ok(())
}

/// Deletion by each propagation policy, under conditions, tried only, and of many.
async fn deletes(client: &Client) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let owned = |name: &str, owner: &ConfigMap| {
        let mut object = config_map(name);
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: owner.name_any(),
            uid: owner.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
        object
    };
    let post = PostParams::default();
    let policies = [
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
        ("orphan", DeleteParams::orphan()),
    ];
    for (policy, deletion) in policies {
        let owner = maps.create(&post, &config_map(policy)).await?;
        let name = format!("{policy}-owned");
        let child = maps.create(&post, &owned(&name, &owner)).await?;
        let tried = deletion.clone().dry_run();
        maps.delete(policy, &tried).await?;
        let other = Preconditions {
            uid: Some("another".to_owned()),
            resource_version: None,
        };
        let conditional = deletion.clone().preconditions(other);
        ensure!(code(maps.delete(policy, &conditional).await)? == 409);
        ensure!(
            maps.get(policy)
                .await?
                .metadata
                .deletion_timestamp
                .is_none()
        );

        maps.delete(policy, &deletion).await?;
        gone(&maps, &owner).await.context(policy)?;
        if policy == "orphan" {
            let left = maps.get(&name).await?;
            ensure!(left.uid() == child.uid() && left.owner_references().is_empty());
        } else {
            gone(&maps, &child).await.context(policy)?;
        }
    }
    let all = ListParams::default().labels("l=1");
    maps.delete_collection(&DeleteParams::default(), &all)
        .await?;
    ensure!(maps.list(&all).await?.items.is_empty());
    println!("deletes");
    Ok(())
}

/// Waits until `object` is no longer there.
async fn gone<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let uid = object.uid().context("an object that never was")?;
    let name = object.name_any();
    let gone = await_condition(api.clone(), &name, conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await??;
    Ok(())
}

/// Defines boats, and waits until they are served.
async fn define(client: &Client) -> anyhow::Result<CustomResourceDefinition> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = Boat::crd();
    let name = definition.name_any();
    let apply = Patch::Apply(&definition);
    let defined = definitions
        .patch(&name, &PatchParams::apply("kubers"), &apply)
        .await?;
    let established = await_condition(definitions, &name, conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await??;
    Ok(defined)
}

async fn definitions(client: &Client) -> anyhow::Result<()> {
    let definition = define(client).await?;
    let boats: Api<Boat> = Api::namespaced(client.clone(), NAMESPACE);
    let boat = Boat::new("dinghy", BoatSpec { seats: 2 });
    boats.create(&PostParams::default(), &boat).await?;
    let crowded = Boat::new("raft", BoatSpec { seats: 10 });
    let refused = boats.create(&PostParams::default(), &crowded).await;
    ensure!(code(refused)? == 422);
    let status = Patch::Merge(json!({ "status": { "afloat": true } }));
    let afloat = boats
        .patch_status("dinghy", &PatchParams::default(), &status)
        .await?;
    ensure!(afloat.status.is_some_and(|status| status.afloat));
    ensure!(afloat.metadata.generation == Some(1));
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .delete(&definition.name_any(), &DeleteParams::default())
        .await?;
    gone(&definitions, &definition).await?;
    ensure!(code(boats.list(&ListParams::default()).await)? == 404);
    println!("definitions");
    Ok(())
}

async fn rights(client: &Client) -> anyhow::Result<()> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some("delete".to_owned()),
                resource: Some("pods".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = reviews.create(&PostParams::default(), &review).await?;
    ensure!(answer.status.is_some_and(|status| status.allowed));
    println!("rights");
    Ok(())
}
