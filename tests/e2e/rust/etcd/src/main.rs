//! The Rust client `etcd-client`, unmodified, through what it offers, against whatever the
//! variables `ETCDCTL_ENDPOINTS`, `ETCDCTL_CACERT`, `ETCDCTL_CERT` and `ETCDCTL_KEY` name.
//!
//! Prints one line per part that was as it is in etcd; fails at the first that was not.

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType,
    GetOptions, Identity, LeaseTimeToLiveOptions, LockOptions, PutOptions, ResignOptions,
    SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions,
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut client = connect().await?;
    keys(&mut client).await.context("keys")?;
    println!("keys");
    transactions(&mut client).await.context("transactions")?;
    println!("transactions");
    watches(&mut client).await.context("watches")?;
    println!("watches");
    leases(&mut client).await.context("leases")?;
    println!("leases");
    locks(&mut client).await.context("locks")?;
    println!("locks");
    elections(&mut client).await.context("elections")?;
    println!("elections");
    upkeep(&mut client).await.context("upkeep")?;
    println!("upkeep");
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| name.to_owned())
}

async fn connect() -> Result<Client> {
    let read = |name: &str| {
        let path = variable(name)?;
        std::fs::read(&path).context(path)
    };
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ETCDCTL_CACERT")?))
        .identity(Identity::from_pem(
            read("ETCDCTL_CERT")?,
            read("ETCDCTL_KEY")?,
        ));
    let options = ConnectOptions::new()
        .with_tls(tls)
        .with_require_leader(true);
    let endpoints = variable("ETCDCTL_ENDPOINTS")?;
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    Ok(Client::connect(endpoints, Some(options)).await?)
}

/// The message of a refusal.
fn refusal<T>(result: Result<T, Error>) -> Result<String> {
    match result {
        Ok(_) => bail!("not refused"),
        Err(Error::GRpcStatus(status)) => Ok(status.message().to_owned()),
        Err(error) => Err(error.into()),
    }
}

async fn keys(client: &mut Client) -> Result<()> {
    let first = client.put("rust/a", "1", None).await?;
    let first = first.header().context("a header")?.revision();
    let options = PutOptions::new().with_prev_key();
    let second = client.put("rust/a", "2", Some(options)).await?;
    ensure!(second.prev_key().context("a version")?.value() == b"1");
    for key in ["rust/b", "rust/c"] {
        client.put(key, key, None).await?;
    }
    let options = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Key, SortOrder::Descend)
        .with_limit(2);
    let found = client.get("rust/", Some(options)).await?;
    ensure!(found.kvs().len() == 2 && found.more() && found.count() == 3);
    ensure!(found.kvs()[0].key() == b"rust/c");
    let options = GetOptions::new().with_revision(first);
    let past = client.get("rust/a", Some(options)).await?;
    ensure!(past.kvs()[0].value() == b"1");
    let options = GetOptions::new().with_prefix().with_count_only();
    ensure!(client.get("rust/", Some(options)).await?.count() == 3);
    client.compact(first + 1, None).await?;
    let options = GetOptions::new().with_revision(first);
    let message = refusal(client.get("rust/a", Some(options)).await)?;
    ensure!(message == "etcdserver: mvcc: required revision has been compacted");
    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("rust/", Some(options)).await?;
    ensure!(deleted.deleted() == 3 && deleted.prev_kvs().len() == 3);
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<()> {
    let txn = || {
        Txn::new()
            .when([Compare::create_revision("txn/a", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("txn/a", "made", None)])
            .or_else([TxnOp::get("txn/a", None)])
    };
    ensure!(client.txn(txn()).await?.succeeded());
    let second = client.txn(txn()).await?;
    ensure!(!second.succeeded());
    let [TxnOpResponse::Get(found)] = &second.op_responses()[..] else {
        bail!("not one answer to a read");
    };
    ensure!(found.kvs()[0].value() == b"made");
    let twice = Txn::new().and_then([TxnOp::put("x", "1", None), TxnOp::put("x", "2", None)]);
    let message = refusal(client.txn(twice).await)?;
    ensure!(message == "etcdserver: duplicate key given in txn request");
    let many: Vec<TxnOp> = (0..129)
        .map(|at| TxnOp::get(format!("{at}"), None))
        .collect();
    let message = refusal(client.txn(Txn::new().and_then(many)).await)?;
    ensure!(message == "etcdserver: too many operations in txn request");
    Ok(())
}

async fn watches(client: &mut Client) -> Result<()> {
    let made = client.put("watch/a", "1", None).await?;
    let made = made.header().context("a header")?.revision();
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(made)
        .with_prev_key();
    let mut stream = client.watch("watch/", Some(options)).await?;
    let options = WatchOptions::new()
        .with_watch_id(7)
        .with_filters([WatchFilterType::NoPut]);
    client.put("watch/a", "2", None).await?;
    client.delete("watch/a", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = stream.message().await?.context("the stream's end")?;
        for event in message.events() {
            let kv = event.kv().context("a key")?;
            let prev = event.prev_kv().map_or(&[][..], |kv| kv.value());
            seen.push((event.event_type(), kv.value().to_vec(), prev.to_vec()));
        }
    }
    let text = |value: &str| value.as_bytes().to_vec();
    ensure!(
        seen == [
            (EventType::Put, text("1"), text("")),
            (EventType::Put, text("2"), text("1")),
            (EventType::Delete, text(""), text("2")),
        ],
        "{seen:?}"
    );
    stream.watch("watch/b", Some(options)).await?;
    let created = stream.message().await?.context("the stream's end")?;
    ensure!(created.created() && created.watch_id() == 7);
    stream.request_progress().await?;
    let progress = stream.message().await?.context("the stream's end")?;
    ensure!(progress.watch_id() == -1 && progress.events().is_empty());
    stream.cancel(7).await?;
    let canceled = stream.message().await?.context("the stream's end")?;
    ensure!(canceled.canceled() && canceled.watch_id() == 7);
    Ok(())
}

async fn leases(client: &mut Client) -> Result<()> {
    let lease = client.lease_grant(60, None).await?.id();
    let options = PutOptions::new().with_lease(lease);
    client.put("lease/a", "1", Some(options)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    let kept = answers.message().await?.context("the stream's end")?;
    ensure!(kept.id() == lease && kept.ttl() == 60);
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(lease, Some(options)).await?;
    ensure!(left.granted_ttl() == 60 && left.keys() == [b"lease/a".to_vec()]);
    ensure!(
        client
            .leases()
            .await?
            .leases()
            .iter()
            .any(|found| found.id() == lease)
    );
    client.lease_revoke(lease).await?;
    ensure!(client.get("lease/a", None).await?.kvs().is_empty());
    let message = refusal(client.lease_revoke(lease).await)?;
    ensure!(message == "etcdserver: requested lease not found");
    Ok(())
}

async fn locks(client: &mut Client) -> Result<()> {
    let first = client.lease_grant(60, None).await?.id();
    let second = client.lease_grant(60, None).await?.id();
    let options = LockOptions::new().with_lease(first);
    let held = client.lock("lock", Some(options)).await?.key().to_vec();
    let mut other = client.clone();
    let waiting = tokio::spawn(async move {
        let options = LockOptions::new().with_lease(second);
        other.lock("lock", Some(options)).await
    });
    loop {
        let options = GetOptions::new().with_prefix().with_count_only();
        if client.get("lock/", Some(options)).await?.count() == 2 {
            break;
        }
    }
    ensure!(!waiting.is_finished());
    client.unlock(held).await?;
    let passed = waiting.await??;
    ensure!(passed.key() == format!("lock/{second:x}").as_bytes());
    client.lease_revoke(second).await?;
    client.lease_revoke(first).await?;
    Ok(())
}

async fn elections(client: &mut Client) -> Result<()> {
    let lease = client.lease_grant(60, None).await?.id();
    let won = client.campaign("election", "one", lease).await?;
    let leader = won.leader().context("a leader")?.clone();
    let mut observed = client.observe("election").await?;
    let heard = observed.message().await?.context("the stream's end")?;
    ensure!(heard.kv().context("a leader")?.value() == b"one");
    let options = etcd_client::ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("two", Some(options)).await?;
    let heard = observed.message().await?.context("the stream's end")?;
    ensure!(heard.kv().context("a leader")?.value() == b"two");
    let options = ResignOptions::new().with_leader(leader);
    client.resign(Some(options)).await?;
    let message = refusal(client.leader("election").await)?;
    ensure!(message == "election: no leader");
    Ok(())
}

async fn upkeep(client: &mut Client) -> Result<()> {
    let members = client.member_list().await?;
    ensure!(members.members().len() == 3);
    let status = client.status().await?;
    ensure!(status.version().starts_with("3."), "{}", status.version());
    ensure!(
        members
            .members()
            .iter()
            .any(|member| member.id() == status.leader())
    );
    let hash = client.hash_kv(0).await?;
    ensure!(hash.header().context("a header")?.revision() > 0);
    client.defragment().await?;
    Ok(())
}
