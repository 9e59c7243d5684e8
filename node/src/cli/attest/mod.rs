//! `nautilus attest`: evidence, of this machine and of others.

mod detect;

use clap::{Args, Subcommand};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus attest detect                                            which TEE this machine has";

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
}

/// Does what was asked.
pub(super) fn run(arguments: AttestArgs) -> anyhow::Result<()> {
    match arguments.command {
        AttestCommand::Detect(arguments) => detect::run(arguments),
    }
}
