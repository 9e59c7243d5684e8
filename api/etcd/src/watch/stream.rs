//! One watch stream: the client's requests, its watches, and what is yet to be sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use nautilus_machine::{
    EventKind, KeyRange, RangeEnd, Revision, WatchError, WatchGroup, WatchMessage,
    WatchRequest as MachineRequest, WatchedEvent,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use crate::access::Wanted;
use crate::convert::{key_range, revision, signed};
use crate::errors;
use crate::limits::MIN_PROGRESS_INTERVAL;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::session::{Session, requires_leader};
use crate::watch::frame::{EventsFrame, Frame, shared_bytes};

/// The id in answers that belong to no watch.
const NO_WATCH: i64 = -1;
/// Between two looks whether watches that catch up have come level, while somebody waits
/// to hear it.
const LEVEL_INTERVAL: Duration = Duration::from_millis(10);
/// Answers made in one go before they are handed on.
const FRAMES_AT_ONCE: usize = 512;

/// etcd's words for a watch that cannot be created.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const TOO_MANY_WATCHES: &str = "etcdserver: too many watches on the stream";

/// A watch.
struct Watch {
    previous: bool,
    fragment: bool,
    no_put: bool,
    no_delete: bool,
    notify: bool,
    /// Nothing was sent since the last tick: the next one tells the progress.
    quiet: bool,
}

impl Watch {
    fn wants(&self, event: &WatchedEvent) -> bool {
        match event.event().kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// The state of a stream.
pub(crate) struct WatchStream {
    session: Arc<Session>,
    metadata: MetadataMap,
    inbound: Option<Streaming<WatchRequest>>,
    group: Box<dyn WatchGroup>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    ticks: Interval,
    /// Progress was asked for while a watch was catching up: told when all are level.
    progress_owed: bool,
    out: VecDeque<Frame>,
}

/// What happened.
enum Wake {
    Request(Option<Result<WatchRequest, Status>>),
    Message(WatchMessage),
    /// Progress is owed, and every watch is level.
    Level,
    Tick,
    LeaderLost,
    Stopped,
}

impl WatchStream {
    /// A stream without watches.
    pub(crate) fn new(
        session: Arc<Session>,
        metadata: MetadataMap,
        inbound: Streaming<WatchRequest>,
    ) -> Self {
        let parts = &session.context.parts;
        let interval = parts
            .limits
            .watch_progress_interval
            .max(MIN_PROGRESS_INTERVAL);
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            group: parts.kv.watch_group(),
            session,
            metadata,
            inbound: Some(inbound),
            watches: BTreeMap::new(),
            next_id: 0,
            ticks,
            progress_owed: false,
            out: VecDeque::new(),
        }
    }

    /// The answers, until the client or the server ends the stream.
    pub(crate) fn run(self) -> impl Stream<Item = Result<Frame, Status>> + Send {
        stream::unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            while stream.out.is_empty() {
                if let Err(status) = stream.step().await {
                    return Some((Err(status), None));
                }
            }
            let frame = stream.out.pop_front()?;
            Some((Ok(frame), Some(stream)))
        })
    }

    /// Waits for one thing to happen, and takes whatever else is there already.
    async fn step(&mut self) -> Result<(), Status> {
        match self.wake().await {
            Wake::Request(Some(request)) => self.request(request?).await,
            // The client has said all it has to say; its watches go on.
            Wake::Request(None) => self.inbound = None,
            Wake::Message(message) => {
                self.message(message);
                while self.out.len() < FRAMES_AT_ONCE {
                    match self.group.next().now_or_never() {
                        Some(message) => self.message(message),
                        None => break,
                    }
                }
            }
            // Told below.
            Wake::Level => {}
            Wake::Tick => self.tick(),
            Wake::LeaderLost => return Err(errors::NO_LEADER.into()),
            Wake::Stopped => return Err(errors::STOPPED.into()),
        }
        if self.progress_owed {
            self.tell_progress();
        }
        Ok(())
    }

    async fn wake(&mut self) -> Wake {
        let needs_leader = requires_leader(&self.metadata);
        let notifies = self.watches.values().any(|watch| watch.notify);
        let request = async {
            match &mut self.inbound {
                Some(inbound) => inbound.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.session.stop.cancelled() => Wake::Stopped,
            request = request => Wake::Request(request),
            wake = next_of_group(&mut *self.group, self.progress_owed) => wake,
            _ = self.ticks.tick(), if notifies => Wake::Tick,
            () = self.session.context.leader_lost(), if needs_leader => Wake::LeaderLost,
        }
    }

    async fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                let id = cancel.watch_id;
                if self.watches.remove(&id).is_some() {
                    self.group.remove(id);
                    self.control(WatchResponse {
                        watch_id: id,
                        canceled: true,
                        ..self.answer()
                    });
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => self.progress_owed = true,
            None => {}
        }
    }

    async fn create(&mut self, mut create: WatchCreateRequest) {
        if create.key.is_empty() {
            create.key = Bytes::from_static(&[0]);
        }
        if create.start_revision < 0 {
            return self.refuse(errors::COMPACTED.message.to_owned());
        }
        let wanted = Wanted::Watch {
            key: &create.key,
            range_end: &create.range_end,
        };
        let judged = self.session.enter(&self.metadata, wanted).await;
        let range = judged.and_then(|_| key_range(create.key.clone(), create.range_end.clone()));
        let range = match range {
            Ok(range) => range,
            Err(status) => return self.refuse(status.message().to_owned()),
        };
        if is_empty(&range) {
            return self.refuse(EMPTY_RANGE.to_owned());
        }
        if self.watches.len() >= self.session.context.parts.limits.max_watches_per_stream {
            return self.refuse(TOO_MANY_WATCHES.to_owned());
        }
        let Some(id) = self.choose_id(create.watch_id) else {
            return self.refuse(DUPLICATE_ID.to_owned());
        };
        self.add(id, range, &create);
    }

    /// Starts a watch whose request is in order.
    fn add(&mut self, id: i64, range: KeyRange, create: &WatchCreateRequest) {
        // The revision told is the one after which the watch starts, so that a client
        // which resumes from it misses nothing.
        let now = self.session.context.parts.kv.revision();
        let request = MachineRequest {
            range,
            from: Some(revision(create.start_revision).unwrap_or(now + 1)),
            previous: create.prev_kv,
        };
        let added = self.group.add(id, request);
        self.control(WatchResponse {
            watch_id: id,
            created: true,
            ..self.answer_at(now)
        });
        let filtered = |filter: FilterType| create.filters.contains(&filter.into());
        let watch = Watch {
            previous: create.prev_kv,
            fragment: create.fragment,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            notify: create.progress_notify,
            quiet: create.progress_notify,
        };
        self.watches.insert(id, watch);
        if let Err(error) = added {
            self.end(id, &error);
        }
    }

    /// The client's id if it is free, or the next free one.
    fn choose_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (asked != NO_WATCH && !self.watches.contains_key(&asked)).then_some(asked);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(id)
    }

    fn message(&mut self, message: WatchMessage) {
        let id = message.id;
        let events = match message.result {
            Ok(events) => events,
            Err(error) => return self.end(id, &error),
        };
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        let wanted = events.iter().filter(|event| watch.wants(event));
        let encoded: Vec<Bytes> = wanted
            .map(|event| shared_bytes(event, watch.previous))
            .collect();
        let (Some(last), false) = (events.last(), encoded.is_empty()) else {
            return;
        };
        watch.quiet = false;
        let frame = EventsFrame {
            header: self.session.context.header(last.event().revision()),
            watch_id: id,
            fragment: false,
            events: encoded,
        };
        if watch.fragment {
            let max_bytes = self.session.context.parts.limits.max_message_bytes();
            let pieces = frame.fragments(max_bytes);
            self.out.extend(pieces.into_iter().map(Frame::Events));
        } else {
            self.out.push_back(Frame::Events(frame));
        }
    }

    /// Ends a watch that cannot go on.
    fn end(&mut self, id: i64, error: &WatchError) {
        if self.watches.remove(&id).is_none() {
            return;
        }
        self.group.remove(id);
        let (compact_revision, cancel_reason) = match error {
            WatchError::Compacted { compacted } => {
                (signed(*compacted), errors::COMPACTED.message.to_owned())
            }
            WatchError::Closed => (0, errors::STOPPED.message.to_owned()),
            WatchError::Storage(_) => (0, error.to_string()),
        };
        self.control(WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision,
            cancel_reason,
            ..self.answer()
        });
    }

    /// Tells each quiet watch that asked for it how far it is.
    fn tick(&mut self) {
        let mut told = Vec::new();
        for (id, watch) in &mut self.watches {
            if watch.notify
                && watch.quiet
                && let Some(revision) = self.group.progress(*id)
            {
                told.push((*id, revision));
            }
            watch.quiet = true;
        }
        for (id, revision) in told {
            self.control(WatchResponse {
                watch_id: id,
                ..self.answer_at(revision)
            });
        }
    }

    /// Answers a request for progress as soon as every watch of the stream is level.
    fn tell_progress(&mut self) {
        let Some(revision) = self.group.synced() else {
            return;
        };
        self.progress_owed = false;
        self.control(WatchResponse {
            watch_id: NO_WATCH,
            ..self.answer_at(revision)
        });
    }

    /// Says that a watch was not created.
    fn refuse(&mut self, cancel_reason: String) {
        self.control(WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason,
            ..self.answer()
        });
    }

    fn control(&mut self, response: WatchResponse) {
        self.out.push_back(Frame::Control(Box::new(response)));
    }

    fn answer(&self) -> WatchResponse {
        self.answer_at(self.session.context.parts.kv.revision())
    }

    fn answer_at(&self, revision: Revision) -> WatchResponse {
        let header: ResponseHeader = self.session.context.header(revision);
        WatchResponse {
            header: Some(header),
            ..WatchResponse::default()
        }
    }
}

/// The next message; or, when progress is owed, that nothing is left to wait for: a watch
/// may come level without having had a single event.
async fn next_of_group(group: &mut dyn WatchGroup, progress_owed: bool) -> Wake {
    loop {
        if !progress_owed {
            return Wake::Message(group.next().await);
        }
        match tokio::time::timeout(LEVEL_INTERVAL, group.next()).await {
            Ok(message) => return Wake::Message(message),
            Err(_) if group.synced().is_some() => return Wake::Level,
            Err(_) => {}
        }
    }
}

fn is_empty(range: &KeyRange) -> bool {
    matches!(&range.end, RangeEnd::Key(end) if *end <= range.start)
}
