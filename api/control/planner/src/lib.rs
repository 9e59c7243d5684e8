//! What a cluster does by itself, decided: the scheduler, and one module per controller.
//! Each is a function of what is there, returning what is to be written.
//!
//! Knows no clock, network, disk, randomness or async runtime, and not who leads: time is
//! an argument, names are drawn where a [`plan::Write`] is carried out. The shell around it
//! is `nautilus-control`.
//!
//! Invariants
//! - A plan is made of the state alone: after a lost leader the next one, seeing the same
//!   objects, goes on with the same plan.
//! - Whoever plans has seen everything that came of its last plan for the same key: there
//!   is nothing to expect and nothing to remember.

mod autoscaler;
pub mod controller;
mod cron;
mod daemon;
mod deployment;
mod device_claims;
pub mod disruption;
mod disruption_overlaps;
pub mod endpoints;
pub mod hash;
pub mod history;
mod job;
pub mod kind;
pub mod node;
pub mod object;
pub mod ownership;
pub mod plan;
pub mod pod_gc;
pub mod pods;
pub mod replicas;
pub mod scheduler;
mod stateful;
mod time_to_live;
pub mod view;
pub mod volumes;

#[cfg(test)]
mod testing;

use controller::Controller;

/// Every controller that needs no settings, each once.
pub fn controllers() -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(autoscaler::Autoscalers::default()),
        Box::new(cron::CronJobs),
        Box::new(daemon::DaemonSets),
        Box::new(deployment::Deployments),
        Box::new(device_claims::DeviceClaims),
        Box::new(disruption::Budgets),
        Box::new(disruption::StaleDisruptions),
        Box::new(disruption_overlaps::Overlaps),
        Box::new(endpoints::LegacyEndpoints),
        Box::new(endpoints::Mirroring),
        Box::new(endpoints::Slices),
        Box::new(job::Jobs),
        Box::new(node::Health::default()),
        Box::new(node::SecretsTtl),
        Box::new(node::TaintEviction::default()),
        Box::new(node::Zones),
        Box::new(pod_gc::PodGc::default()),
        Box::new(replicas::Replicas::of_replication_controllers()),
        Box::new(replicas::Replicas::of_sets()),
        Box::new(stateful::StatefulSets),
        Box::new(time_to_live::TimeToLive),
        Box::new(volumes::attach::Attacher::default()),
        Box::new(volumes::binder::Binder),
        Box::new(volumes::ephemeral::Ephemeral),
        Box::new(volumes::expand::Expander),
        Box::new(volumes::unused::Unused),
    ]
}
