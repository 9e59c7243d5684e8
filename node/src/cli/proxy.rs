//! `nautilus proxy`: the stable endpoint in the foreground.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Global;
use super::credential::read_key;
use crate::attested::{Address, JudgeArgs};
use crate::config::{Log, LogFormat, parse_duration};
use crate::exit::Failure;
use crate::node::{StopSignals, own_session};
use crate::proxy::{Attested, Backends, Plain, Preference, ProxyConfig, Who, run as balance};
use crate::telemetry::Telemetry;
use crate::up::layout::Layout;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
TLS goes through --listen from end to end. New connections go to ready followers first, so that
the end of a leader cuts no watch.

With --plain, clients of this machine speak HTTP without TLS: the proxy asks every node for
evidence, first and again every --judge-interval, speaks to accepted nodes only, over the very
keys they proved, and adds its own certificate. Whoever reaches that address acts with it. A node
that is refused later, or silent for 10 s, loses its connections. --attested judges nodes for
--listen too. The members that accepted nodes name are used as well; --members keeps them.

Examples:
  nautilus proxy --dir q                  for the quorum of ./q, on its own port
  nautilus proxy --listen 127.0.0.1:6443 --kubeconfig admin.kubeconfig \\
      --backend 1=10.0.0.1:6443 --backend 2=10.0.0.2:6443 --backend 3=10.0.0.3:6443
  nautilus proxy --plain 127.0.0.1:8001 --server https://10.0.0.1:6443 \\
      --key operator.key --measurement snp:8f3a..     then kubectl -s http://127.0.0.1:8001
  nautilus proxy --plain 127.0.0.1:8001 --server https://10.0.0.1:6443 \\
      --anonymous --measurement snp:8f3a.. --members members.json
                                          for a worker, who has a token";

/// `nautilus proxy`.
#[derive(Args)]
pub(crate) struct ProxyArgs {
    /// Bind here [default: the folder's port on 127.0.0.1, or nothing with --plain]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A node: its id and API address; repeat for each [default: --server and the members it
    /// names, or the folder's nodes]
    #[arg(long = "backend", value_name = "ID=HOST:PORT", value_parser = backend)]
    backends: Vec<(u64, Address)>,
    /// Who comes first for a new connection
    #[arg(long, value_enum, default_value = "followers")]
    prefer: Preference,
    /// Use only nodes whose evidence is accepted; --plain always does
    #[arg(long)]
    attested: bool,
    /// Ask nodes for evidence again after so long
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = interval)]
    judge_interval: Duration,
    /// Keep the addresses of the members that accepted nodes name here, for the next start
    #[arg(long, value_name = "FILE")]
    members: Option<PathBuf>,
    /// Serve HTTP without TLS here, with the proxy's own certificate
    #[arg(long, value_name = "ADDR:PORT")]
    plain: Option<SocketAddr>,
    /// Let --plain be an address that other machines reach: they act with the certificate
    #[arg(long, requires = "plain")]
    plain_beyond_loopback: bool,
    /// A name by which clients may call --plain, besides localhost and addresses
    #[arg(long = "accept-host", value_name = "NAME", requires = "plain")]
    accept_hosts: Vec<String>,
    /// Add certificates got with this operator's private key [default: the kubeconfig's user]
    #[arg(long, value_name = "FILE", requires = "plain")]
    key: Option<PathBuf>,
    /// Add no certificate
    #[arg(long, requires = "plain", conflicts_with = "key")]
    anonymous: bool,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Leave the session of the terminal
    #[arg(long, hide = true)]
    own_session: bool,
}

fn backend(text: &str) -> Result<(u64, Address), String> {
    let (id, address) = text
        .split_once('=')
        .ok_or("write ID=HOST:PORT, as in 1=10.0.0.1:6443")?;
    let id = id
        .parse()
        .map_err(|_| format!("{id:?} is not a node's id"))?;
    Ok((id, address.parse()?))
}

fn interval(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|interval| *interval >= Duration::from_secs(1))
        .ok_or_else(|| "write a duration of a second or more, such as 1m".to_owned())
}

/// Balances until it is told to stop.
pub(super) async fn run(global: &Global, arguments: ProxyArgs) -> anyhow::Result<()> {
    own_session(arguments.own_session);
    let config = config(global, &arguments)?;
    let log = Log {
        format: LogFormat::Human,
        filter: "info".to_owned(),
    };
    let telemetry = Telemetry::start(&log, None, "proxy")?;
    let mut signals = StopSignals::listen()?;
    balance(config, signals.next()).await?;
    telemetry.shutdown();
    Ok(())
}

fn config(global: &Global, arguments: &ProxyArgs) -> anyhow::Result<ProxyConfig> {
    let layout = global.layout()?;
    let is_attested = arguments.attested || arguments.plain.is_some();
    let members = members(arguments.members.as_deref(), is_attested)?;
    let is_kept = members.as_ref().is_some_and(|(_, kept)| !kept.is_empty());
    let named = match global.server() {
        Some(server) if is_attested && arguments.backends.is_empty() => {
            let address = server
                .parse()
                .map_err(|reason| Failure::Usage.error(format!("--server: {reason}")))?;
            vec![(0, address)]
        }
        _ => arguments.backends.clone(),
    };
    let local = match named.is_empty() && !is_kept {
        true => Some(layout.existing()?),
        false => None,
    };
    let backends = match &local {
        Some(_) => Backends::Folder(layout.clone()),
        None => Backends::Fixed(named),
    };
    let listen = match (arguments.listen, &local) {
        (Some(listen), _) => Some(listen),
        (None, _) if arguments.plain.is_some() => None,
        (None, Some(quorum)) => Some(SocketAddr::from(([127, 0, 0, 1], quorum.proxy_port))),
        (None, None) => {
            return Err(Failure::Usage.error("--backend needs --listen: name the address to bind"));
        }
    };
    let attested = if is_attested {
        let judge = arguments
            .judge
            .judge(&layout.simulated_root_key(), local.is_some())?;
        Some(Attested {
            judge,
            interval: arguments.judge_interval,
            members,
            plain: plain(global, &layout, arguments)?,
        })
    } else {
        None
    };
    Ok(ProxyConfig {
        listen,
        backends,
        preference: arguments.prefer,
        kubeconfig: global.kubeconfig_path()?,
        attested,
    })
}

/// The file of members, and those that it names. They are judged like any others.
fn members(
    path: Option<&Path>,
    is_attested: bool,
) -> anyhow::Result<Option<(PathBuf, Vec<Address>)>> {
    let Some(path) = path else { return Ok(None) };
    if !is_attested {
        return Err(Failure::Usage.error(
            "--members needs --attested: only accepted nodes are believed about the members",
        ));
    }
    Ok(Some((path.to_owned(), nautilus_client::read_members(path))))
}

fn plain(global: &Global, layout: &Layout, arguments: &ProxyArgs) -> anyhow::Result<Option<Plain>> {
    let Some(listen) = arguments.plain else {
        return Ok(None);
    };
    if !listen.ip().is_loopback() && !arguments.plain_beyond_loopback {
        return Err(Failure::Usage.error(format!(
            "--plain {listen}: other machines would act with this proxy's certificate; bind a \
             loopback address, or say --plain-beyond-loopback"
        )));
    }
    let kubeconfig = global.kubeconfig_path()?;
    let who = match &arguments.key {
        _ if arguments.anonymous => Who::Anonymous,
        Some(key) => Who::Operator(read_key(key)?),
        None if kubeconfig.exists() => Who::Kubeconfig(kubeconfig),
        None => {
            return Err(Failure::Usage.error(format!(
                "--plain adds a certificate, and there is no kubeconfig {}: pass --kubeconfig, \
                 --key {} or --anonymous",
                kubeconfig.display(),
                layout.operator_key().display()
            )));
        }
    };
    Ok(Some(Plain {
        listen,
        hosts: arguments.accept_hosts.clone(),
        who,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_an_id_and_an_address() {
        let (id, address) = backend("2=10.0.0.2:6443").expect("fits");
        assert_eq!((id, address.authority()), (2, "10.0.0.2:6443".to_owned()));
        assert!(backend("10.0.0.2:6443").is_err());
        assert!(backend("2=http://10.0.0.2:6443").is_err());
    }
}
