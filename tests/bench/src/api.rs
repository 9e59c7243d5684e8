//! `make bench-apiserver`: nautilus beside an unmodified kube-apiserver over three etcd
//! members, on the same machine, under the same client, with the same mutual TLS.

pub mod closed;
pub mod fanout;
pub mod kube;
pub mod measure;
pub mod objects;
pub mod open;
pub mod quorum;
pub mod report;
pub mod rows;
pub mod side;
