//! Auth, Cluster and Maintenance over one in-memory machine, through the generated clients.

mod auth;
mod cluster;
mod maintenance;
mod world;
