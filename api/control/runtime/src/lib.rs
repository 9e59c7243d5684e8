//! Runs planners: keeps what they see level with the API's caches, says which keys they
//! look at, and carries their plans out, for one term of the leader.
//!
//! Knows tokio and nothing of HTTP, storage or Raft: everything comes through the port
//! [`Api`], whose writes count in one term only.
//!
//! Invariants
//! - One controller looks at a key in one place at a time, and only once its view holds
//!   everything that its earlier plans for that key have written (`guard` in the tests).
//! - Nothing is planned before every kind was read behind a barrier of this term.
//! - After a write that fails, no later step of its plan begins; the key is looked at
//!   again. Events are recorded as far as they can be, and delay nothing.
//! - Everything ends by being dropped: no task outlives the term.

mod carry;
mod described;
mod driver;
mod events;
mod follow;
mod port;
mod queue;
mod scheduler;
mod scheduler_devices;
mod scheduler_meters;
#[cfg(test)]
mod testing;
mod world;

use std::sync::Arc;

use nautilus_planner::controller::Controller;
use tokio::task::JoinSet;

pub use events::{Author, Recorder};
pub use follow::Listener;
pub use port::{Api, Body, Item, Told, Written};
pub use scheduler::Scheduling;
pub use world::World;

/// One term's work. Ends only by being dropped.
pub async fn run(
    api: Arc<dyn Api>,
    controllers: Vec<Box<dyn Controller>>,
    scheduling: Option<Arc<Scheduling>>,
) {
    described::describe();
    let mut tasks = JoinSet::new();
    let kinds = controllers.iter().flat_map(|own| own.follows());
    let scheduled = scheduling.iter().flat_map(|own| own.follows());
    let world = Arc::new(World::of(kinds.chain(scheduled).copied()));
    let recorder = Recorder::start(api.clone(), &mut tasks);
    let mut told: Vec<Arc<dyn Listener>> = Vec::new();
    for controller in controllers {
        let driver = driver::Driver::new(api.clone(), world.clone(), controller, recorder.clone());
        let driver = Arc::new(driver);
        told.push(driver.clone());
        tasks.spawn(driver::run(driver));
    }
    if let Some(scheduling) = scheduling {
        told.push(scheduling.clone());
        tasks.spawn(scheduler::run(scheduling, world.clone(), recorder));
    }
    follow::start(&api, &world, told, &mut tasks);
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(world::PARSED_FOR).await;
            world.tidy();
        }
    });
    while tasks.join_next().await.is_some() {}
}
