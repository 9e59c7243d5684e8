//! The plain HTTP paths.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::World;

async fn fetch(world: &World, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(world.address)
        .await
        .expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: nautilus\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .await
        .expect("an answer");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, body.to_owned())
}

#[tokio::test]
async fn the_version_is_told_as_etcd_tells_it() {
    let world = World::new().await;
    let (status, body) = fetch(&world, "/version").await;
    assert_eq!(status, "200");
    assert!(body.starts_with(r#"{"etcdserver":"3.6."#), "{body}");
    assert!(body.contains(r#""etcdcluster":"3.6.0""#), "{body}");
}

#[tokio::test]
async fn a_member_with_a_leader_is_healthy() {
    let world = World::new().await;
    let healthy = (
        "200".to_owned(),
        r#"{"health":"true","reason":""}"#.to_owned(),
    );
    assert_eq!(fetch(&world, "/health").await, healthy);
    assert_eq!(fetch(&world, "/readyz").await.0, "200");
}

#[tokio::test]
async fn metrics_are_served_and_other_paths_are_not_found() {
    let world = World::new().await;
    assert_eq!(fetch(&world, "/metrics").await.1, "a_metric 1\n");
    assert_eq!(fetch(&world, "/nope").await.0, "404");
}
