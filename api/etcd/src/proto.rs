//! etcd's messages, clients and servers, generated from `proto/`.
//!
//! Names and numbers are the interface's; bytes are [`bytes::Bytes`], so that a key or
//! value is a slice of the buffer it came in.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::match_same_arms,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::large_futures
)]

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
