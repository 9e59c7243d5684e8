//! A client of an etcd, as much as a migration needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use nautilus_etcd::proto::etcdserverpb::auth_client::AuthClient;
use nautilus_etcd::proto::etcdserverpb::kv_client::KvClient;
use nautilus_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use nautilus_etcd::proto::etcdserverpb::{
    AuthenticateRequest, LeaseGrantRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, request_op::Request as Operation,
};
use nautilus_machine::{KeyValue, LeaseId, Revision};
use tokio::net::TcpStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Uri};
use tonic::{Request, Status};

use super::address::{Endpoint, EtcdAddress};
use crate::exit::Failure;

/// To open a connection, and to answer one request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer, at most: pages are cut far below.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// The end of a range that has none.
const TO_THE_END: &[u8] = b"\0";

/// A connected etcd. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EtcdClient {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
    endpoint: String,
}

/// A part of a range.
pub(crate) struct Page {
    /// The keys, in order.
    pub(crate) kvs: Vec<KeyValue>,
    /// Whether there is more behind them.
    pub(crate) more: bool,
}

impl EtcdClient {
    /// Connects to the first endpoint that answers.
    pub(crate) async fn connect(address: &EtcdAddress) -> anyhow::Result<Self> {
        let mut reasons = Vec::new();
        for endpoint in &address.endpoints {
            match Self::connect_to(endpoint, address).await {
                Ok(client) => return Ok(client),
                Err(error) => reasons.push(format!("{endpoint}: {error:#}")),
            }
        }
        Err(Failure::Unavailable.error(reasons.join("; ")))
    }

    async fn connect_to(endpoint: &str, address: &EtcdAddress) -> anyhow::Result<Self> {
        let parsed = Arc::new(Endpoint::parse(endpoint)?);
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&address.tls));
        // tonic would want TLS of its own for https: the connector brings it.
        let uri = format!("http://{}", parsed.authority);
        let connector = tower::service_fn(move |_: Uri| {
            let (parsed, tls) = (Arc::clone(&parsed), tls.clone());
            async move {
                let stream = TcpStream::connect(&parsed.authority).await?;
                stream.set_nodelay(true)?;
                if !parsed.is_tls {
                    return Ok::<_, std::io::Error>(TokioIo::new(Either::Plain(stream)));
                }
                let stream = tls.connect(parsed.name.clone(), stream).await?;
                Ok(TokioIo::new(Either::Tls(Box::new(stream))))
            }
        });
        let channel = tonic::transport::Endpoint::from_shared(uri)?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .connect_with_connector(connector)
            .await?;
        let mut client = Self {
            channel,
            token: None,
            endpoint: endpoint.to_owned(),
        };
        if let Some((name, password)) = &address.user {
            let request = AuthenticateRequest {
                name: name.clone(),
                password: password.to_string(),
            };
            let mut users = AuthClient::new(client.channel.clone());
            let token = users.authenticate(request).await;
            let token = token.map_err(|status| client.failed(&status))?;
            client.token = Some(token.into_inner().token.parse()?);
        }
        client.revision().await?;
        Ok(client)
    }

    /// The present revision, read linearizably.
    pub(crate) async fn revision(&self) -> anyhow::Result<Revision> {
        let request = RangeRequest {
            key: Bytes::from_static(TO_THE_END),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer = self.kv().range(self.with_token(request)).await;
        let answer = answer.map_err(|status| self.failed(&status))?;
        let header = answer
            .into_inner()
            .header
            .context("an answer without a header")?;
        Ok(u64::try_from(header.revision)?)
    }

    /// How many keys begin with `prefix`.
    pub(crate) async fn count(&self, prefix: &[u8], revision: Revision) -> anyhow::Result<u64> {
        let request = RangeRequest {
            key: start_of(prefix),
            range_end: end_of(prefix),
            revision: i64::try_from(revision)?,
            count_only: true,
            ..RangeRequest::default()
        };
        let answer = self.kv().range(self.with_token(request)).await;
        let answer = answer.map_err(|status| self.failed(&status))?;
        Ok(u64::try_from(answer.into_inner().count)?)
    }

    /// Keys from `from` up to `to` (empty: to the end), `limit` at most (0: all).
    pub(crate) async fn page(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        revision: Option<Revision>,
    ) -> anyhow::Result<Page> {
        let request = RangeRequest {
            key: start_of(from),
            range_end: if to.is_empty() {
                Bytes::from_static(TO_THE_END)
            } else {
                Bytes::copy_from_slice(to)
            },
            limit: i64::try_from(limit)?,
            revision: i64::try_from(revision.unwrap_or(0))?,
            ..RangeRequest::default()
        };
        let answer = self.kv().range(self.with_token(request)).await;
        let answer = answer.map_err(|status| self.failed(&status))?.into_inner();
        let kvs = answer.kvs.into_iter().map(|kv| {
            Ok(KeyValue {
                key: kv.key,
                value: kv.value,
                create_revision: u64::try_from(kv.create_revision)?,
                mod_revision: u64::try_from(kv.mod_revision)?,
                version: u64::try_from(kv.version)?,
                lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
            })
        });
        Ok(Page {
            kvs: kvs.collect::<anyhow::Result<_>>()?,
            more: answer.more,
        })
    }

    /// Every lease with the time that it was granted, in seconds.
    pub(crate) async fn leases(&self) -> anyhow::Result<BTreeMap<LeaseId, u64>> {
        let mut client = LeaseClient::new(self.channel.clone());
        let listed = client
            .lease_leases(self.with_token(LeaseLeasesRequest {}))
            .await;
        let listed = listed.map_err(|status| self.failed(&status))?.into_inner();
        let mut leases = BTreeMap::new();
        for lease in listed.leases {
            let request = LeaseTimeToLiveRequest {
                id: lease.id,
                keys: false,
            };
            let answer = client.lease_time_to_live(self.with_token(request)).await;
            let answer = answer.map_err(|status| self.failed(&status))?.into_inner();
            if answer.ttl >= 0 && answer.granted_ttl > 0 {
                leases.insert(LeaseId(lease.id), u64::try_from(answer.granted_ttl)?);
            }
        }
        Ok(leases)
    }

    /// Grants a lease of a given id.
    pub(crate) async fn grant(&self, id: LeaseId, seconds: u64) -> anyhow::Result<()> {
        let request = LeaseGrantRequest {
            id: id.0,
            ttl: i64::try_from(seconds)?,
        };
        let mut client = LeaseClient::new(self.channel.clone());
        let granted = client.lease_grant(self.with_token(request)).await;
        granted.map(|_| ()).map_err(|status| self.failed(&status))
    }

    /// Writes keys with values and leases, in one transaction.
    pub(crate) async fn put_all(&self, kvs: Vec<KeyValue>) -> anyhow::Result<()> {
        let puts = kvs.into_iter().map(|kv| RequestOp {
            request: Some(Operation::RequestPut(PutRequest {
                key: kv.key,
                value: kv.value,
                lease: kv.lease.map_or(0, |lease| lease.0),
                ..PutRequest::default()
            })),
        });
        let request = TxnRequest {
            success: puts.collect(),
            ..TxnRequest::default()
        };
        let written = self.kv().txn(self.with_token(request)).await;
        written.map(|_| ()).map_err(|status| self.failed(&status))
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn failed(&self, status: &Status) -> anyhow::Error {
        anyhow!(
            "{}: {} ({:?})",
            self.endpoint,
            status.message(),
            status.code()
        )
    }
}

/// An empty key stands for the first there can be.
fn start_of(key: &[u8]) -> Bytes {
    if key.is_empty() {
        Bytes::from_static(TO_THE_END)
    } else {
        Bytes::copy_from_slice(key)
    }
}

/// The end of the range of `prefix`, as etcd has it.
fn end_of(prefix: &[u8]) -> Bytes {
    match nautilus_machine::KeyRange::prefix(Bytes::copy_from_slice(prefix)).end {
        nautilus_machine::RangeEnd::Key(end) => end,
        _ => Bytes::from_static(TO_THE_END),
    }
}

/// A connection with or without TLS.
enum Either {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

mod io {
    //! Reading and writing what [`Either`] is.

    use std::io::Result;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Either;

    impl AsyncRead for Either {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            match self.get_mut() {
                Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
                Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            }
        }
    }

    impl AsyncWrite for Either {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            match self.get_mut() {
                Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
                Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            match self.get_mut() {
                Self::Plain(stream) => Pin::new(stream).poll_flush(context),
                Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            match self.get_mut() {
                Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
                Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            }
        }
    }
}
