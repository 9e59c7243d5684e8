//! `nautilus proxy`: the stable endpoint in the foreground.

use std::net::SocketAddr;

use clap::Args;

use super::Global;
use crate::config::{Log, LogFormat};
use crate::exit::Failure;
use crate::node::{StopSignals, own_session};
use crate::proxy::{Backends, ProxyConfig, run as balance};
use crate::telemetry::Telemetry;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
TLS goes through the endpoint from end to end. New connections go to ready followers
first, so that the end of a leader cuts no watch.

Examples:
  nautilus proxy --dir q                  for the quorum of ./q, on its own port
  nautilus proxy --listen 127.0.0.1:6443 --kubeconfig admin.kubeconfig \\
      --backend 1=10.0.0.1:6443 --backend 2=10.0.0.2:6443 --backend 3=10.0.0.3:6443";

/// `nautilus proxy`.
#[derive(Args)]
pub(crate) struct ProxyArgs {
    /// Bind here [default: the folder's port on 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A node: its id and API address; repeat for each [default: the folder's nodes]
    #[arg(long = "backend", value_name = "ID=HOST:PORT", value_parser = backend)]
    backends: Vec<(u64, String)>,
    /// Leave the session of the terminal
    #[arg(long, hide = true)]
    own_session: bool,
}

fn backend(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text
        .split_once('=')
        .ok_or("write ID=HOST:PORT, as in 1=10.0.0.1:6443")?;
    let id = id
        .parse()
        .map_err(|_| format!("{id:?} is not a node's id"))?;
    Ok((id, address.to_owned()))
}

/// Balances until it is told to stop.
pub(super) async fn run(global: &Global, arguments: ProxyArgs) -> anyhow::Result<()> {
    own_session(arguments.own_session);
    let config = match (arguments.listen, arguments.backends) {
        (listen, backends) if backends.is_empty() => {
            let layout = global.layout()?;
            let quorum = layout.existing()?;
            let own = SocketAddr::from(([127, 0, 0, 1], quorum.proxy_port));
            ProxyConfig {
                listen: listen.unwrap_or(own),
                backends: Backends::Folder(layout),
                kubeconfig: global.kubeconfig_path()?,
            }
        }
        (Some(listen), backends) => ProxyConfig {
            listen,
            backends: Backends::Fixed(backends),
            kubeconfig: global.kubeconfig_path()?,
        },
        (None, _) => {
            return Err(Failure::Usage.error("--backend needs --listen: name the address to bind"));
        }
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_an_id_and_an_address() {
        assert_eq!(
            backend("2=10.0.0.2:6443"),
            Ok((2, "10.0.0.2:6443".to_owned()))
        );
        assert!(backend("10.0.0.2:6443").is_err());
    }
}
