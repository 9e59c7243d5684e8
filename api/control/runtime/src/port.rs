//! What the runtime needs of an API server: to follow kinds, to write, and the time.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use nautilus_machinery::timestamp::Instant;
use nautilus_planner::kind::Kind;
use nautilus_planner::plan::{Failed, Write};
use nautilus_planner::view::{Answer, Key, Question};
use serde_json::Value;

/// The bytes of one version of an object, wherever they are kept.
pub trait Body: Send + Sync {
    /// The object as clients see it, at its own version; `None` if it can't be read.
    fn object(&self) -> Option<Value>;
}

/// One version of one object.
#[derive(Clone)]
pub struct Item {
    /// Where it stands.
    pub key: Key,
    /// The revision that wrote it.
    pub revision: u64,
    /// The rest.
    pub body: Arc<dyn Body>,
}

/// What a follower of a kind hears, in the order of revisions.
pub enum Told {
    /// Everything as of a revision, in the place of what was.
    Begin(Vec<Item>, u64),
    /// A new version of an object.
    Put(Item),
    /// An object is gone as of a revision.
    Gone(Key, u64),
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The revision of the object as it stands; a follower of its kind hears of it, unless
    /// it had before.
    pub revision: u64,
    /// The object's name, which may have been drawn.
    pub name: String,
}

/// See the module. Implemented by the API's face, and by a cluster in memory for tests.
pub trait Api: Send + Sync + 'static {
    /// Follows a kind from a state that holds everything acknowledged before the call. The
    /// stream ends when it can't go on; a new one begins anew.
    fn follow(&self, kind: Kind) -> BoxStream<'static, Told>;

    /// Carries one write out as the service account `user` of `kube-system`. Never asked to
    /// record events as such: they come as objects to create and patch; nor for
    /// [`Write::Told`].
    ///
    /// # Errors
    /// What the API answered. The deletion of what is gone, or has another uid by now, is
    /// no error.
    fn write<'a>(
        &'a self,
        user: &'a str,
        write: &'a Write,
    ) -> BoxFuture<'a, Result<Written, Failed>>;

    /// Answers a question of the service account `user`, behind a barrier.
    fn ask<'a>(&'a self, user: &'a str, question: &'a Question) -> BoxFuture<'a, Answer>;

    /// The time of the commands' clock.
    fn now(&self) -> Instant;
}
