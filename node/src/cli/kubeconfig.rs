//! `nautilus kubeconfig`: credentials by an operator's key.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Global, print};
use crate::credentials::{self, Judge};
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::kubeconfig::{DEFAULT_CONTEXT, Kubeconfig};
use crate::up::layout::Quorum;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
The node proves by evidence that it made the answer; only then is the quorum's authority
trusted and the kubeconfig written.

Examples:
  nautilus kubeconfig                        renew DIR/kubeconfig of a quorum started by `up`
  nautilus kubeconfig --out -                print it instead
  nautilus kubeconfig --server https://10.0.0.1:6443 --key operator.key \\
      --simulated-root-key root.pub --allow-simulated --measurement 5f1c.. --out admin.kubeconfig";

/// `nautilus kubeconfig`.
#[derive(Args)]
pub(crate) struct KubeconfigArgs {
    /// The operator's private key, pinned at genesis [default: DIR/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where to write; - prints [default: DIR/kubeconfig, or - with --server]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Accept evidence of this measurement; repeat for each, `self` is this binary's
    #[arg(long = "measurement", value_name = "self|HEX", default_value = "self")]
    measurements: Vec<String>,
    /// Accept simulated evidence, which proves nothing about hardware
    #[arg(long)]
    allow_simulated: bool,
    /// The public key that verifies simulated evidence [default: DIR/simulated-root.pub]
    #[arg(long, value_name = "FILE")]
    simulated_root_key: Option<PathBuf>,
}

/// Gets the credentials and writes them.
pub(super) async fn run(global: &Global, arguments: KubeconfigArgs) -> anyhow::Result<()> {
    let layout = global.layout()?;
    let local: Option<Quorum> = layout.load()?;
    let server = match (global.server(), &local) {
        (Some(server), _) => server.to_owned(),
        (None, Some(quorum)) => quorum.server(),
        (None, None) => {
            return Err(Failure::Usage.error(format!(
                "no quorum in {}: pass --server and --key, or --dir",
                layout.root().display()
            )));
        }
    };
    let key_path = arguments.key.unwrap_or_else(|| layout.operator_key());
    let key_pem =
        zeroize::Zeroizing::new(std::fs::read_to_string(&key_path).with_context(|| {
            format!(
                "can't read the operator's key {}; name it with --key",
                key_path.display()
            )
        })?);
    let judge = Judge::new(
        &arguments.measurements,
        arguments.allow_simulated || local.is_some(),
        &arguments
            .simulated_root_key
            .unwrap_or_else(|| layout.simulated_root_key()),
    )?;
    let granted = credentials::request(&server, &key_pem, &judge).await?;
    let mut contexts = vec![(DEFAULT_CONTEXT.to_owned(), server)];
    for node in local.iter().flat_map(|quorum| &quorum.nodes) {
        contexts.push((format!("{DEFAULT_CONTEXT}-{}", node.id), node.server()));
    }
    let kubeconfig = Kubeconfig {
        authority_pem: granted.authority_pem,
        certificate_pem: granted.certificate_pem,
        key_pem,
        user: granted.user,
        contexts,
    };
    let text = kubeconfig.to_yaml();
    let out = match (arguments.out, &local) {
        (Some(out), _) => out,
        (None, Some(_)) => layout.kubeconfig(),
        (None, None) => PathBuf::from("-"),
    };
    if out.as_os_str() == "-" {
        print(&text);
        return Ok(());
    }
    write_durably(&out, text.as_bytes(), 0o600).with_context(|| out.display().to_string())?;
    print(&format!("wrote {}", out.display()));
    Ok(())
}
