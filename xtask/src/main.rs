//! The repository's own checks: `cargo xtask deps | tidy | ci`.
//!
//! Knows nothing of the product; reads `cargo metadata` and source text.

mod deps;
mod modules;
mod source;
mod tidy;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  deps [--bless]  compare the graph of our crates with xtask/deps.golden, or write it
  tidy            banned calls, unwraps, forgotten notes, long, headless and dead files
  ci              formatting, clippy, tidy, deps, and cargo-deny where it is installed
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["deps"] => deps(false),
        ["deps", "--bless"] => deps(true),
        ["tidy"] => tidy(),
        ["ci"] => ci(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn deps(bless: bool) -> Result<()> {
    let workspace = Workspace::read()?;
    let golden = workspace.root.join("xtask/deps.golden");
    let graph = deps::graph(&workspace);
    if bless {
        return std::fs::write(&golden, graph)
            .with_context(|| format!("{} can't be written", golden.display()));
    }
    let expected = std::fs::read_to_string(&golden)
        .with_context(|| format!("{} can't be read", golden.display()))?;
    let differences = deps::differences(&expected, &graph);
    if differences.is_empty() {
        return Ok(());
    }
    for difference in &differences {
        eprintln!("{difference}");
    }
    bail!(
        "the graph of crates changed: an edge is a decision; if it is meant, run \
         `cargo xtask deps --bless` and say why in the commit"
    )
}

fn tidy() -> Result<()> {
    let workspace = Workspace::read()?;
    let mut findings = Vec::new();
    for package in &workspace.packages {
        findings.extend(tidy::check_package(&workspace.root, package)?);
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} untidy places"),
    }
}

fn ci() -> Result<()> {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, result: Result<()>| match result {
        Ok(()) => eprintln!("{name}: good"),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    };
    step("fmt", cargo(&["fmt", "--all", "--check"]));
    step(
        "clippy",
        cargo(&[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    step("tidy", tidy());
    step("deps", deps(false));
    if deny_is_installed() {
        // Advisories need the network: `make deny` asks for them too.
        let checks = ["bans", "licenses", "sources"];
        step(
            "deny",
            cargo(&[&["deny", "--all-features", "check"][..], &checks].concat()),
        );
    } else {
        eprintln!("deny: skipped, cargo-deny is not installed");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(arguments)
        .status()
        .context("cargo can't be run")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} failed", arguments.join(" "))
    }
}

fn deny_is_installed() -> bool {
    let version = Command::new("cargo-deny").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}
