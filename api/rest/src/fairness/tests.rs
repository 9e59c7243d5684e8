//! How long a watch holds its seats.

use nautilus_machine::UnixMillis;
use nautilus_machine::solo::SoloKv;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::cache::Caches;
use crate::context::RequestLimits;
use crate::options::ListOptions;
use crate::storage::Storage;
use crate::watch::{Ground, Session, WireEvent};

/// A node with few seats, and somebody who takes them.
struct Node {
    control: Arc<FlowControl>,
    marks: Marks,
    asked: Attributes,
}

impl Node {
    fn start(kv: &Arc<dyn Kv>, shutdown: &CancellationToken) -> Self {
        let control = FlowControl::start(kv, 1, Duration::from_millis(1), shutdown);
        let asked = Attributes {
            verb: "watch".to_owned(),
            is_resource: true,
            version: "v1".to_owned(),
            resource: "namespaces".to_owned(),
            ..Attributes::default()
        };
        let user = User::authenticated("jane", vec![]);
        let marks = control.classify(&user, &asked);
        Self {
            marks: marks.unwrap_or_else(|failure| panic!("{}", failure.error)),
            control,
            asked,
        }
    }

    async fn enter(&self) -> Option<Seats> {
        let query = [("resourceVersion".to_owned(), "1".to_owned())];
        let entered = self.control.enter(&self.marks, &self.asked, &query).await;
        entered.ok()
    }
}

#[tokio::test]
async fn a_watch_holds_its_seats_until_its_initial_events_are_told() {
    let kv: Arc<dyn Kv> = Arc::new(SoloKv::new(|| UnixMillis(0)));
    let kind = resource::find("", "v1", "namespaces").expect("it is served");
    let object = json!({"metadata": {"name": "a"}});
    let writer = crate::storage::Writer {
        user: &User::internal("test"),
        field_manager: "",
        dry_run: false,
        remarks: crate::audit::Remarks::default(),
    };
    let storage = Storage::new(kv.clone());
    let made = storage.create(kind, None, object, &writer).await;
    made.unwrap_or_else(|failure| panic!("{}", failure.error));
    let shutdown = CancellationToken::new();
    let node = Node::start(&kv, &shutdown);
    let mut held = Vec::new();
    while let Some(seats) = node.enter().await {
        held.push(seats);
    }
    let limits = RequestLimits::default();
    let caches = Caches::new(kv.clone(), shutdown.clone());
    let uri = "/api/v1/namespaces?watch=true".parse().expect("an address");
    let options = ListOptions::parse(&uri, kind, true).expect("options");
    let open = async |seats| {
        let ground = Ground {
            kv: &kv,
            caches: &caches,
            limits: &limits,
            shutdown: &shutdown,
        };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await;
        let permit = permit.expect("it is open");
        let session = Session::open(ground, kind, None, &options, permit, seats).await;
        session.unwrap_or_else(|failure| panic!("{}", failure.error))
    };
    let mut session = open(held.pop()).await;
    assert!(node.enter().await.is_none(), "the watch holds its seat");
    let told = session.next().await.expect("the watch goes on");
    assert!(matches!(told.as_slice(), [WireEvent::Object(_)]));
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(seats) = node.enter().await {
                return seats;
            }
        }
    });
    held.push(freed.await.expect("the seat came back"));
    let session = open(held.pop()).await;
    drop(session);
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        while node.enter().await.is_none() {}
    });
    freed.await.expect("a watch that ends gives its seat back");
}
