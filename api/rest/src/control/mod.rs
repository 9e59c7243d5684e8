//! The scheduler and the controllers of the leader: what `nautilus-control` asks of an API
//! server, answered by the watch cache and the generic store of this process.
//!
//! Invariants
//! - Every write is fenced by the leader's term, passes admission, and is allowed to the
//!   controller's own service account by its role: a controller can do here what it could
//!   from outside, and no more.
//! - What is followed begins behind a barrier of this term.

mod ask;
mod follow;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use nautilus_control::{Api, Scheduling, Told, Written};
use nautilus_machinery::identity::User;
use nautilus_machinery::timestamp::Instant;
use nautilus_planner::kind::Kind;
use nautilus_planner::node::{NodeIpam, PodRanges};
use nautilus_planner::plan::{Failed, Write};
use nautilus_planner::scheduler::{Profile, Scheduler};
use nautilus_planner::view::{Answer, Question};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::access::role_of_user;
use crate::context::RestContext;
use crate::ids;
use crate::storage::Storage;

/// Who schedules: a user of its own in the bootstrap roles.
pub(crate) const SCHEDULER: &str = "kube-scheduler";

/// Which controllers run, and the scheduler's profiles.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// As `--controllers` of the reference: names, `*` for all, `-*` for none, `-NAME` for
    /// all but one.
    pub controllers: Vec<String>,
    /// What each `schedulerName` stands for.
    pub profiles: Vec<Profile>,
    /// Out of which nodes get ranges of pods' addresses; `None`: they get none from here.
    pub pod_ranges: Option<PodRanges>,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            controllers: vec!["*".to_owned()],
            profiles: vec![Profile::default()],
            pod_ranges: None,
        }
    }
}

impl ControlSettings {
    /// The names that there are.
    pub fn names() -> Vec<&'static str> {
        let controllers = nautilus_planner::controllers();
        let names = controllers.iter().map(|own| own.name());
        names.chain([SCHEDULER]).collect()
    }

    /// The same with the profiles of a `KubeSchedulerConfiguration`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn with_scheduler(self, configuration: &Value) -> Result<Self, String> {
        let profiles = Profile::read_all(configuration)?;
        Ok(Self { profiles, ..self })
    }

    /// Whether the one of this name runs.
    pub fn runs(&self, name: &str) -> bool {
        let said = |own: &String| own == name;
        let unsaid = |own: &String| own.strip_prefix('-') == Some(name);
        !self.controllers.iter().any(unsaid)
            && (self.controllers.iter().any(said) || self.controllers.iter().any(|own| own == "*"))
    }
}

/// What lets the scheduler read how busy nodes are: the reference's does not look at that,
/// and its role says nothing of it.
pub(crate) fn metrics_role() -> [(&'static str, Value); 2] {
    let rules = json!([
        { "apiGroups": ["metrics.k8s.io"], "resources": ["nodes"], "verbs": ["list"] },
    ]);
    role_of_user("nautilus:node-load", &format!("system:{SCHEDULER}"), &rules)
}

/// One term's work. Ends only by being dropped.
pub(crate) async fn run(context: &Arc<RestContext>, storage: &Storage) {
    let settings = &context.node.control;
    let mut controllers = nautilus_planner::controllers();
    if let Some(ranges) = &settings.pod_ranges {
        controllers.push(Box::new(NodeIpam::new(ranges.clone())));
    }
    controllers.retain(|own| settings.runs(own.name()));
    let api = Arc::new(ClusterApi {
        context: context.clone(),
        storage: storage.clone(),
        users: Mutex::default(),
    });
    let scheduling = settings.runs(SCHEDULER).then(|| {
        let scheduler = Scheduler::new(settings.profiles.clone());
        Scheduling::new(api.clone(), scheduler)
    });
    *context.scheduling.lock() = scheduling.as_ref().map(Arc::downgrade).unwrap_or_default();
    nautilus_control::run(api, controllers, scheduling).await;
}

/// See the module.
struct ClusterApi {
    context: Arc<RestContext>,
    /// Fenced by the term, and by the roles of who writes.
    storage: Storage,
    users: Mutex<BTreeMap<String, Arc<User>>>,
}

impl ClusterApi {
    fn user(&self, name: &str) -> Arc<User> {
        let mut users = self.users.lock();
        if let Some(user) = users.get(name) {
            return user.clone();
        }
        let user = Arc::new(match name {
            SCHEDULER => User::authenticated(format!("system:{SCHEDULER}"), Vec::new()),
            name => User::controller(name),
        });
        users.insert(name.to_owned(), user.clone());
        user
    }
}

impl Api for ClusterApi {
    fn follow(&self, kind: Kind) -> BoxStream<'static, Told> {
        follow::follow(self.context.clone(), self.storage.clone(), kind)
    }

    fn write<'a>(
        &'a self,
        user: &'a str,
        write: &'a Write,
    ) -> BoxFuture<'a, Result<Written, Failed>> {
        Box::pin(write::carry_out(self, user, write))
    }

    fn ask<'a>(&'a self, user: &'a str, question: &'a Question) -> BoxFuture<'a, Answer> {
        let user = self.user(user);
        Box::pin(async move { ask::ask(&self.context, &user, question).await })
    }

    fn now(&self) -> Instant {
        ids::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_named_as_the_reference_names_them() {
        let settings = |text: &str| ControlSettings {
            controllers: text.split(',').map(str::to_owned).collect(),
            profiles: Vec::new(),
            pod_ranges: None,
        };
        for (text, name, runs) in [
            ("*", "job-controller", true),
            ("*,-job-controller", "job-controller", false),
            ("-job-controller,*", "job-controller", false),
            ("*,-job-controller", "node-controller", true),
            ("job-controller", "job-controller", true),
            ("job-controller", "node-controller", false),
            ("", "job-controller", false),
            ("-*", "job-controller", false),
        ] {
            assert_eq!(settings(text).runs(name), runs, "{text} {name}");
        }
    }
}
