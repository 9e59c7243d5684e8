//! Connections over mutual TLS, and the loop that lets a [`Driver`] speak on them.
//!
//! All connections of a measurement live on one thread: the generator takes at most one
//! processor. After each read everything that became due is written at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http2::{Happened, Session};

/// What one read takes at most.
const READ_BYTES: usize = 1 << 16;
/// For a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a member serves clients, and how to get in.
#[derive(Clone)]
pub struct Endpoint {
    /// Its port on the loopback address.
    pub port: u16,
    /// The client's certificate and whom it trusts.
    pub tls: Arc<ClientConfig>,
    /// The name in the server's certificate.
    pub server_name: ServerName<'static>,
}

/// A connection on which nothing was said yet.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    session: Session,
}

impl Endpoint {
    /// Connects.
    ///
    /// # Errors
    /// When the member does not answer or refuses.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let connecting = async {
            let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
            tcp.set_nodelay(true)?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            connector.connect(self.server_name.clone(), tcp).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .context("no connection in time")??;
        Ok(Connection {
            stream,
            session: Session::new(&format!("127.0.0.1:{}", self.port)),
        })
    }
}

/// Decides what is said on the connections of a measurement.
pub trait Driver: 'static {
    /// Says the first words on connection `at`.
    fn start(&mut self, at: usize, session: &mut Session);

    /// Looks at what happened to the call `token` of connection `at`.
    fn happened(&mut self, at: usize, session: &mut Session, token: u64, what: What<'_>);

    /// Called every [`Driver::TICK`].
    fn tick(&mut self, _at: usize, _session: &mut Session) {}

    /// Whether all is said and heard.
    fn finished(&self) -> bool;

    /// How often [`Driver::tick`] is called, never when `None`.
    const TICK: Option<Duration> = None;
}

/// [`Happened`] with the message at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A message came.
    Message(&'a [u8]),
    /// A piece of a plain answer came.
    Piece {
        /// How it begins.
        head: &'a [u8],
        /// Bytes of it.
        bytes: usize,
        /// Line ends in it.
        lines: usize,
    },
    /// The call is over, with or without a message.
    Ended {
        /// Whether a message came.
        answered: bool,
    },
}

/// Lets `driver` speak on `connections` until it has finished.
///
/// # Errors
/// When a connection ends before, or nothing comes of it within `patience`.
pub async fn drive<D: Driver>(
    connections: Vec<Connection>,
    driver: D,
    patience: Duration,
) -> anyhow::Result<D> {
    let driver = Rc::new(RefCell::new(driver));
    let (stop, stopped) = watch::channel(false);
    let stop = Rc::new(stop);
    let local = LocalSet::new();
    let mut tasks = JoinSet::new();
    for (at, connection) in connections.into_iter().enumerate() {
        let pump = pump(
            at,
            connection,
            Rc::clone(&driver),
            Rc::clone(&stop),
            stopped.clone(),
        );
        tasks.spawn_local_on(pump, &local);
    }
    let all = local.run_until(async move {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a connection's task")??;
        }
        anyhow::Ok(())
    });
    tokio::time::timeout(patience, all)
        .await
        .with_context(|| format!("unfinished after {patience:?}"))??;
    drop(local);
    Rc::into_inner(driver)
        .map(RefCell::into_inner)
        .context("the driver is still in use")
}

async fn pump<D: Driver>(
    at: usize,
    mut connection: Connection,
    driver: Rc<RefCell<D>>,
    stop: Rc<watch::Sender<bool>>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let Connection { stream, session } = &mut connection;
    let mut buffer = vec![0; READ_BYTES];
    let mut ticks = D::TICK.map(tokio::time::interval);
    driver.borrow_mut().start(at, session);
    loop {
        if driver.borrow().finished() {
            stop.send_replace(true);
            return Ok(());
        }
        if !session.output.is_empty() {
            stream.write_all(&session.output).await?;
            stream.flush().await?;
            session.output.clear();
        }
        tokio::select! {
            biased;
            read = stream.read(&mut buffer) => {
                let length = read.with_context(|| format!("connection {at}"))?;
                anyhow::ensure!(length > 0, "the server closed connection {at}");
                session.receive(&buffer[..length])?;
                tell(&mut *driver.borrow_mut(), at, session);
            }
            _ = stopped.changed() => return Ok(()),
            () = next(&mut ticks) => driver.borrow_mut().tick(at, session),
        }
    }
}

async fn next(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn tell<D: Driver>(driver: &mut D, at: usize, session: &mut Session) {
    let mut events = std::mem::take(&mut session.events);
    for (token, happened) in events.list.drain(..) {
        let what = match happened {
            Happened::Message { start, end } => What::Message(&events.messages[start..end]),
            Happened::Piece {
                start,
                end,
                bytes,
                lines,
            } => What::Piece {
                head: &events.messages[start..end],
                bytes,
                lines,
            },
            Happened::Ended { answered } => What::Ended { answered },
        };
        driver.happened(at, session, token, what);
    }
    events.messages.clear();
    session.events = events;
}

/// One call with one answer, on a connection of its own.
///
/// # Errors
/// When the member cannot be reached or refuses.
pub async fn ask(
    endpoint: &Endpoint,
    path: &'static str,
    message: Vec<u8>,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    struct Once {
        path: &'static str,
        message: Vec<u8>,
        answer: Option<Vec<u8>>,
        ended: bool,
    }
    impl Driver for Once {
        fn start(&mut self, _at: usize, session: &mut Session) {
            session.call(0, self.path, &self.message);
        }
        fn happened(&mut self, _at: usize, _session: &mut Session, _token: u64, what: What<'_>) {
            match what {
                What::Message(message) => self.answer = Some(message.to_vec()),
                What::Piece { .. } => {}
                What::Ended { .. } => self.ended = true,
            }
        }
        fn finished(&self) -> bool {
            self.ended
        }
    }
    let connection = endpoint.connect().await?;
    let once = Once {
        path,
        message,
        answer: None,
        ended: false,
    };
    let once = drive(vec![connection], once, patience).await?;
    once.answer
        .with_context(|| format!("{path} was refused on port {}", endpoint.port))
}
