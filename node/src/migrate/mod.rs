//! Moving key spaces between etcd and a quorum, through etcd's own interface.
//!
//! Both sides speak it: a source may be another etcd, one of our quorums, an etcd
//! snapshot file or an archive; a target is a quorum's etcd face. What was moved is
//! compared by a hash over key, value and lease time of both sides, each at one revision.

mod address;
mod client;
mod copy;
mod source;

pub(crate) use address::{EtcdAddress, EtcdArgs};
pub(crate) use client::EtcdClient;
pub(crate) use copy::{compare, copy};
pub(crate) use source::Source;
