//! `nautilus attest`: evidence, of this machine and of others.

mod collateral;
mod detect;
mod verify;

use clap::{Args, Subcommand};

use super::Global;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus attest detect                                            which TEE this machine has
  nautilus attest verify 10.0.0.1:6443 --measurement snp:8f3a..     a quorum elsewhere
  nautilus attest verify 127.0.0.1:7443 --dir q --allow-simulated   one made by `up --dir q`
  nautilus attest collateral list";

/// `nautilus attest`.
#[derive(Args)]
pub(crate) struct AttestArgs {
    #[command(subcommand)]
    command: AttestCommand,
}

#[derive(Subcommand)]
enum AttestCommand {
    /// Show which TEE this machine has, what it measures, and why the others are not there
    #[command(after_help = detect::EXAMPLES)]
    Detect(detect::DetectArgs),
    /// Ask every member of a running quorum for evidence, and judge it here
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// See, import and export what vendors say of their platforms
    #[command(after_help = collateral::EXAMPLES)]
    Collateral(collateral::CollateralArgs),
}

/// Does what was asked.
pub(super) async fn run(global: &Global, arguments: AttestArgs) -> anyhow::Result<()> {
    match arguments.command {
        AttestCommand::Detect(arguments) => detect::run(&arguments),
        AttestCommand::Verify(arguments) => verify::run(global, arguments).await,
        AttestCommand::Collateral(arguments) => collateral::run(global, arguments).await,
    }
}
