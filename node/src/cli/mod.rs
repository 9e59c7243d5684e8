//! The command line: what can be asked, and by which code it ends.

mod attest;
mod audit;
mod certificate;
mod credential;
mod explain;
mod export;
mod import;
mod keys;
mod kubeconfig;
mod member;
pub(crate) mod policy;
mod proxy;
mod receipt;
mod recover;
mod snapshot;
pub(crate) mod status;
mod target;

pub(crate) use snapshot::read_identity;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::exit::{EXIT_CODES, Failure, Logged, one_line};
use crate::up::layout::{DEFAULT_DIR, Layout};
use crate::{bench, node, up, upgrade};

const ABOUT: &str = "Nautilus: a Kubernetes control plane whose masters prove to each other \
what they are before they share a secret";

const EXAMPLES: &str = "\
Examples:
  nautilus up                         a quorum of three on this machine, until Ctrl-C
  nautilus up --detach --dir q        the same, in the background, kept in ./q
  nautilus status --dir q
  kubectl --kubeconfig q/kubeconfig get nodes
  nautilus down --dir q
  nautilus node --config /etc/nautilus/node.toml    one real node";

const VERSION: &str = if nautilus_store::ENCRYPTS {
    env!("CARGO_PKG_VERSION")
} else {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " with the null cipher: encrypts nothing, for benchmarks only"
    )
};

/// The whole command line.
#[derive(Parser)]
#[command(name = "nautilus", version = VERSION, about = ABOUT, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command understands.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// The folder of a quorum on this machine [default: ./.nautilus]
    #[arg(long, global = true, env = "NAUTILUS_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Credentials for the quorum [default: DIR/kubeconfig]
    #[arg(long, global = true, env = "NAUTILUS_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Speak to this API address instead of the kubeconfig's
    #[arg(
        long,
        alias = "endpoint",
        global = true,
        env = "NAUTILUS_SERVER",
        value_name = "URL"
    )]
    server: Option<String>,
}

impl Global {
    /// The quorum's folder.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        Layout::new(self.dir.as_deref().unwrap_or(DEFAULT_DIR.as_ref()))
    }

    /// The quorum's folder, when one was named.
    pub(crate) fn named_dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Start a quorum on this machine, or what is stopped of it
    #[command(after_help = up::UP_EXAMPLES)]
    Up(up::UpArgs),
    /// Stop the quorum of a folder in order
    #[command(after_help = up::DOWN_EXAMPLES)]
    Down(up::DownArgs),
    /// Show every node of a quorum
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Get credentials by an operator's key, after judging the node's evidence
    #[command(after_help = kubeconfig::EXAMPLES)]
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print a short-lived credential for kubectl, after judging the quorum's evidence
    #[command(after_help = credential::EXAMPLES)]
    Credential(credential::CredentialArgs),
    /// Issue a client certificate for a user, such as an etcd client
    #[command(after_help = certificate::EXAMPLES)]
    Certificate(certificate::CertificateArgs),
    /// Check what a quorum runs in, and what its evidence is judged by
    #[command(after_help = attest::EXAMPLES)]
    Attest(attest::AttestArgs),
    /// Show why a pod goes where it goes, node by node
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// List and change the members of a quorum
    #[command(after_help = member::EXAMPLES)]
    Member(member::MemberArgs),
    /// Show and change which code may be a member
    #[command(after_help = policy::EXAMPLES)]
    Policy(policy::PolicyArgs),
    /// Replace every node by one of another build, without a failed request
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(upgrade::UpgradeArgs),
    /// Show and rotate the keys under which a quorum seals its disks
    #[command(after_help = keys::EXAMPLES)]
    Keys(keys::KeysArgs),
    /// Bring an etcd's keys into a quorum
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Write a quorum's keys into a file, as plaintext
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
    /// Bring back a quorum that lost too many members, by its operators' shares
    #[command(after_help = recover::EXAMPLES)]
    Recover(recover::RecoverArgs),
    /// Save, examine and restore snapshots
    #[command(after_help = snapshot::EXAMPLES)]
    Snapshot(snapshot::SnapshotArgs),
    /// Prove that the quorum accepted a change, and check such proofs
    #[command(after_help = receipt::EXAMPLES)]
    Receipt(receipt::ReceiptArgs),
    /// Check the log of requests to the Kubernetes API
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::AuditArgs),
    /// Run one node
    #[command(after_help = node::EXAMPLES)]
    Node(Box<node::NodeArgs>),
    /// Run the stable endpoint of a quorum: a TCP balancer over its nodes
    #[command(after_help = proxy::EXAMPLES)]
    Proxy(proxy::ProxyArgs),
    /// Measure a quorum
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::BenchArgs),
    /// Print a shell's completion script
    #[command(
        after_help = "Examples:\n  nautilus completion bash > /etc/bash_completion.d/nautilus\n  source <(nautilus completion zsh)"
    )]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; a closed pipe is nobody's.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                Failure::Usage.code()
            } else {
                0
            });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.downcast_ref::<Logged>().is_none() {
                let _ = writeln!(std::io::stderr(), "error: {}", one_line(&error));
            }
            ExitCode::from(Failure::of(&error).code())
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Node(arguments) => node::run(*arguments),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "nautilus",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Proxy(arguments) => runtime()?.block_on(proxy::run(&global, arguments)),
        Command::Up(arguments) => runtime()?.block_on(up::up(&global, arguments)),
        Command::Down(arguments) => runtime()?.block_on(up::down(&global, arguments)),
        Command::Status(arguments) => runtime()?.block_on(status::run(&global, arguments)),
        Command::Kubeconfig(arguments) => runtime()?.block_on(kubeconfig::run(&global, arguments)),
        Command::Credential(arguments) => runtime()?.block_on(credential::run(&global, arguments)),
        Command::Certificate(arguments) => {
            runtime()?.block_on(certificate::run(&global, arguments))
        }
        Command::Attest(arguments) => runtime()?.block_on(attest::run(&global, arguments)),
        Command::Explain(arguments) => runtime()?.block_on(explain::run(&global, arguments)),
        Command::Member(arguments) => runtime()?.block_on(member::run(&global, arguments)),
        Command::Policy(arguments) => runtime()?.block_on(policy::run(&global, arguments)),
        Command::Upgrade(arguments) => runtime()?.block_on(upgrade::run(&global, arguments)),
        Command::Keys(arguments) => runtime()?.block_on(keys::run(&global, arguments)),
        Command::Import(arguments) => runtime()?.block_on(import::run(&global, arguments)),
        Command::Export(arguments) => runtime()?.block_on(export::run(&global, arguments)),
        Command::Recover(arguments) => runtime()?.block_on(recover::run(&global, arguments)),
        Command::Snapshot(arguments) => runtime()?.block_on(snapshot::run(&global, arguments)),
        Command::Audit(arguments) => audit::run(&global, &arguments),
        Command::Receipt(arguments) => runtime()?.block_on(receipt::run(&global, arguments)),
        Command::Bench(arguments) => runtime()?.block_on(bench::run(&global, arguments)),
    }
}

/// The runtime of every command but `node`, which sizes its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// Prints a result; a reader that has gone away is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("nautilus "),
                "{} has no example",
                command.get_name()
            );
        }
    }
}
