//! `nautilus kubeconfig`: credentials by an operator's key.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::credential::read_key;
use super::{Global, print};
use crate::attested::{JudgeArgs, absolute};
use crate::credentials::{self, CredentialError};
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::kubeconfig::{DEFAULT_CONTEXT, ExecPlugin, Kubeconfig};
use crate::up::layout::Quorum;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
The node proves by evidence that it made the answer; only then is the quorum's authority
trusted and the kubeconfig written.

Examples:
  nautilus kubeconfig                        renew DIR/kubeconfig of a quorum started by `up`
  nautilus kubeconfig --out -                print it instead
  nautilus kubeconfig --exec --out kc        short-lived credentials, evidence judged anew for each
  nautilus kubeconfig --server https://10.0.0.1:6443 --key operator.key \\
      --simulated-root-key root.pub --allow-simulated --measurement 5f1c.. --out admin.kubeconfig";

/// `nautilus kubeconfig`.
#[derive(Args)]
pub(crate) struct KubeconfigArgs {
    /// The operator's private key, pinned at genesis [default: DIR/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where to write; - prints [default: DIR/kubeconfig, or - with --server or --exec]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a kubeconfig without a key: kubectl runs `nautilus credential` for one
    #[arg(long)]
    exec: bool,
    #[command(flatten)]
    judge: JudgeArgs,
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
    let key_pem = read_key(&key_path)?;
    let judge = arguments
        .judge
        .judge(&layout.simulated_root_key(), local.is_some())?;
    let granted = credentials::request(&server, &key_pem, &judge, None)
        .await
        .map_err(CredentialError::into_failure)?;
    let mut contexts = vec![(DEFAULT_CONTEXT.to_owned(), server.clone())];
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
    let text = if arguments.exec {
        let mut words = vec![
            "credential".to_owned(),
            "--server".to_owned(),
            server,
            "--key".to_owned(),
            absolute(&key_path)?,
        ];
        words.extend(
            arguments
                .judge
                .to_words(&layout.simulated_root_key(), local.is_some())?,
        );
        let plugin = ExecPlugin {
            command: absolute(&std::env::current_exe().context("this program's path")?)?,
            arguments: words,
        };
        zeroize::Zeroizing::new(plugin.to_yaml(&kubeconfig))
    } else {
        kubeconfig.to_yaml()
    };
    let out = match (arguments.out, &local) {
        (Some(out), _) => out,
        // Other commands read the folder's own kubeconfig, with the key in it.
        (None, Some(_)) if !arguments.exec => layout.kubeconfig(),
        (None, _) => PathBuf::from("-"),
    };
    if out.as_os_str() == "-" {
        print(&text);
        return Ok(());
    }
    write_durably(&out, text.as_bytes(), 0o600).with_context(|| out.display().to_string())?;
    print(&format!("wrote {}", out.display()));
    Ok(())
}
