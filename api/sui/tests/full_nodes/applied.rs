//! From a full node to the quorum's rows: what following makes of genuine events.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::types::UnixMillis;
use nautilus_machine::{KeyRange, Kv, RangeRequest};
use nautilus_machinery::identity::User;
use nautilus_sui_standin::ApiRequest as Scheduled;
use nautilus_workers::events::{
    ApiAnswer, ApiRequest, ApiRequests, Events, EventsContext, EventsSettings,
};
use nautilus_workers::{SystemClock, VerdictSettings, Verdicts};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{By, OWNER, SUI, World, events, judge};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API server that takes everything.
#[derive(Default)]
struct Api(Mutex<Vec<(User, String)>>);

impl ApiRequests for Api {
    fn execute(
        &self,
        user: User,
        request: ApiRequest,
        _limit_bytes: usize,
    ) -> BoxFuture<'_, Result<ApiAnswer, String>> {
        let asked = format!("{} {}", request.method, request.path);
        self.0.lock().push((user, asked));
        Box::pin(async {
            Ok(ApiAnswer {
                code: 201,
                body: "{}".into(),
                truncated: false,
            })
        })
    }
}

fn row(kv: &SoloKv, key: &str) -> Value {
    let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
    let found = kv.range(&request).expect("readable").kvs;
    found.first().map_or(Value::Null, |row| {
        serde_json::from_slice(&row.value).expect("JSON")
    })
}

/// Waits until a row is as wanted.
async fn until(kv: &SoloKv, key: &str, pointer: &str, wanted: Value) -> Value {
    let waiting = async {
        loop {
            let row = row(kv, key);
            if row.pointer(pointer) == Some(&wanted) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| {
        panic!(
            "{key} did not come to {pointer} = {wanted}: {}",
            row(kv, key)
        )
    })
}

#[tokio::test]
async fn genuine_events_come_to_the_same_rows_by_either_face() {
    for by in [By::Grpc, By::JsonRpc] {
        let world = World::with(1).await;
        let mut settings = world.settings(by);
        settings.events_from = Some(0);
        let kv = SoloKv::new(|| UnixMillis(1_790_000_000_000));
        let quorum: Arc<dyn Kv> = Arc::new(kv.clone());
        let clock = Arc::new(SystemClock::new());
        let verdicts = Verdicts::new(
            Arc::clone(&quorum),
            Arc::new(judge(&settings)),
            clock.clone(),
            Arc::new(|| 1),
            &VerdictSettings::default(),
        );
        let followed = Events::new(EventsContext {
            kv: quorum,
            channel: Arc::new(kv.clone()),
            hints: Arc::default(),
            source: Arc::new(events(&settings)),
            verdicts,
            clock,
            settings: EventsSettings {
                poll_interval: Duration::from_millis(50),
                ..EventsSettings::default()
            },
        });
        let (api, stop) = (Arc::new(Api::default()), CancellationToken::new());
        let running = tokio::spawn(Arc::clone(&followed).run(api.clone(), stop.clone()));

        world.register("w1", 10 * SUI, "seal-1");
        let node = "/nautilus/sui/nodes/w1";
        let row = until(&kv, node, "/stake_amount", json!(10 * SUI)).await;
        assert_eq!(row["owner"], OWNER.to_string());
        assert_eq!(followed.connected(), Ok(()));

        let scheduled = Scheduled {
            request_id: "r1".into(),
            method: "POST".into(),
            resource: "configmaps".into(),
            namespace: "default".into(),
            name: "c".into(),
            payload: "{}".into(),
            seal_token: "seal-1".into(),
            requester: OWNER,
            priority: 3,
            assigned_worker: String::new(),
        };
        world
            .chain
            .schedule_api_request(scheduled)
            .expect("scheduled");
        let request = "/nautilus/sui/requests/r1";
        until(&kv, request, "/state/done/result/success", json!(true)).await;
        let asked = api.0.lock().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].0.name, format!("sui:{OWNER}"));
        assert!(asked[0].0.in_group("nautilus:stake:admin"));
        assert_eq!(asked[0].1, "POST /api/v1/namespaces/default/configmaps");

        world.chain.set_status("w1", "slashed").expect("slashed");
        until(&kv, node, "/stake", json!("slashed")).await;
        let evicted = "/nautilus/seal/verdicts/w1/evicted";
        until(&kv, evicted, "/verdict", json!("slashed")).await;
        stop.cancel();
        running.await.expect("no panic");
    }
}
