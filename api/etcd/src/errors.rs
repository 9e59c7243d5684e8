//! Every code and message that etcd's clients match on, as they know them
//! (etcd `api/v3rpc/rpctypes/error.go`).

use nautilus_machine::{BarrierError, ProposeError, RangeError, Refusal};
use tonic::{Code, Status};

/// A code and its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The gRPC code.
    pub code: Code,
    /// The message, to the letter.
    pub message: &'static str,
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Status::new(fault.code, fault.message)
    }
}

macro_rules! faults {
    ($($name:ident = $code:ident, $message:literal;)+) => {
        $(
            #[doc = concat!("`", $message, "`")]
            pub const $name: Fault = Fault { code: Code::$code, message: $message };
        )+
        /// All of them, for tests.
        pub const ALL: &[Fault] = &[$($name),+];
    };
}

faults! {
    EMPTY_KEY = InvalidArgument, "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument, "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument, "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument, "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument, "etcdserver: duplicate key given in txn request";
    INVALID_SORT_OPTION = InvalidArgument, "etcdserver: invalid sort option";
    COMPACTED = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted, "etcdserver: mvcc: database space exceeded";

    LEASE_NOT_FOUND = NotFound, "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition, "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange, "etcdserver: too large lease TTL";

    WATCH_CANCELED = Cancelled, "etcdserver: watch canceled";

    MEMBER_EXISTS = FailedPrecondition, "etcdserver: member ID already exist";
    PEER_URL_EXISTS = FailedPrecondition, "etcdserver: Peer URLs already exists";
    MEMBER_NOT_ENOUGH_STARTED = FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members";
    MEMBER_BAD_URLS = InvalidArgument, "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND = NotFound, "etcdserver: member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition, "etcdserver: can only promote a learner member";
    LEARNER_NOT_READY = FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS = FailedPrecondition, "etcdserver: too many learner members in cluster";
    CLUSTER_ID_MISMATCH = FailedPrecondition, "etcdserver: cluster ID mismatch";

    REQUEST_TOO_LARGE = InvalidArgument, "etcdserver: request is too large";
    TOO_MANY_REQUESTS = ResourceExhausted, "etcdserver: too many requests";

    ROOT_USER_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not exist";
    ROOT_ROLE_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not have root role";
    USER_EXISTS = FailedPrecondition, "etcdserver: user name already exists";
    USER_EMPTY = InvalidArgument, "etcdserver: user name is empty";
    USER_NOT_FOUND = FailedPrecondition, "etcdserver: user name not found";
    ROLE_EXISTS = FailedPrecondition, "etcdserver: role name already exists";
    ROLE_NOT_FOUND = FailedPrecondition, "etcdserver: role name not found";
    ROLE_EMPTY = InvalidArgument, "etcdserver: role name is empty";
    AUTH_FAILED = InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN = InvalidArgument, "etcdserver: permission not given";
    PERMISSION_DENIED = PermissionDenied, "etcdserver: permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition, "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition,
        "etcdserver: permission is not granted to the role";
    NO_PASSWORD_USER = Unknown,
        "auth: authentication failed, password was given for no password user";
    VERIFY_ONLY = Unknown, "auth: token signing attempted with verify-only key";
    PASSWORD_TOO_LONG = Unknown, "bcrypt: password length exceeds 72 bytes";
    AUTH_NOT_ENABLED = FailedPrecondition, "etcdserver: authentication is not enabled";
    INVALID_AUTH_TOKEN = Unauthenticated, "etcdserver: invalid auth token";
    INVALID_AUTH_MANAGEMENT = InvalidArgument, "etcdserver: invalid auth management";
    AUTH_OLD_REVISION = InvalidArgument, "etcdserver: revision of auth store is old";

    NO_LEADER = Unavailable, "etcdserver: no leader";
    NOT_LEADER = FailedPrecondition, "etcdserver: not leader";
    LEADER_CHANGED = Unavailable, "etcdserver: leader changed";
    NOT_CAPABLE = FailedPrecondition, "etcdserver: not capable";
    STOPPED = Unavailable, "etcdserver: server stopped";
    TIMEOUT = Unavailable, "etcdserver: request timed out";
    TIMEOUT_LEADER_FAILED = Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_CONNECTION_LOST = Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    TIMEOUT_APPLIED = Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    UNHEALTHY = Unavailable, "etcdserver: unhealthy cluster";
    CORRUPT = DataLoss, "etcdserver: corrupt cluster";
    NOT_SUPPORTED_FOR_LEARNER = FailedPrecondition, "etcdserver: rpc not supported for learner";
    TIMEOUT_LEADER_TRANSFER = Unknown,
        "etcdserver: request timed out, leader transfer took too long";
    BAD_LEADER_TRANSFEREE = FailedPrecondition, "etcdserver: bad leader transferee";

    WRONG_DOWNGRADE_VERSION = InvalidArgument,
        "etcdserver: wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET = InvalidArgument, "etcdserver: invalid downgrade target version";
    CLUSTER_VERSION_UNAVAILABLE = FailedPrecondition,
        "etcdserver: cluster version not found during downgrade";
    DOWNGRADE_IN_PROCESS = FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress";
    NO_INFLIGHT_DOWNGRADE = FailedPrecondition, "etcdserver: no inflight downgrade job";

    CANCELED = Cancelled, "etcdserver: request canceled";
    DEADLINE_EXCEEDED = DeadlineExceeded, "etcdserver: context deadline exceeded";
}

/// A refused command, in etcd's words.
pub fn refused(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::LeaseNotFound => LEASE_NOT_FOUND.into(),
        Refusal::LeaseExists => LEASE_EXISTS.into(),
        Refusal::KeyNotFound => KEY_NOT_FOUND.into(),
        Refusal::EmptyKey => EMPTY_KEY.into(),
        Refusal::ValueProvided => VALUE_PROVIDED.into(),
        Refusal::LeaseProvided => LEASE_PROVIDED.into(),
        Refusal::DuplicateKey => DUPLICATE_KEY.into(),
        Refusal::TooDeep { .. } => TOO_MANY_OPS.into(),
        Refusal::Compacted => COMPACTED.into(),
        Refusal::FutureRevision => FUTURE_REVISION.into(),
        Refusal::Fenced { .. } => LEADER_CHANGED.into(),
        other => Status::invalid_argument(format!("etcdserver: {other}")),
    }
}

/// A proposal without an outcome, in etcd's words.
pub fn not_proposed(error: &ProposeError) -> Status {
    match error {
        ProposeError::Unavailable(_) => NO_LEADER.into(),
        ProposeError::Unknown(_) => TIMEOUT_LEADER_FAILED.into(),
        ProposeError::TooLarge { .. } => REQUEST_TOO_LARGE.into(),
        ProposeError::Storage(_) => Status::unknown(format!("etcdserver: {error}")),
    }
}

/// A read barrier that failed, in etcd's words.
pub fn not_confirmed(error: &BarrierError) -> Status {
    match error {
        BarrierError::Unavailable(_) => TIMEOUT.into(),
    }
}

/// A range that failed, in etcd's words.
pub fn not_read(error: &RangeError) -> Status {
    match error {
        RangeError::Compacted { .. } => COMPACTED.into(),
        RangeError::FutureRevision { .. } => FUTURE_REVISION.into(),
        RangeError::Storage(_) => Status::unknown(format!("etcdserver: {error}")),
    }
}
