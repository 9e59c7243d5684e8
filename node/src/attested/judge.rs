//! What a client accepts as the quorum's code, from its flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use nautilus_attest_protocol::{Endorsements, EvidencePolicy, NoEndorsements, TeeKind};
use nautilus_attest_tee::{SimulatedVerifier, Verifiers, measure_running_binary};
use nautilus_client::Judge;

use crate::endorsements::{Endorsed, read_directory};
use crate::exit::Failure;
use crate::policy::file::read_policy;
use crate::simulated;

/// The flags that say what is accepted.
#[derive(Args, Clone, Debug)]
pub(crate) struct JudgeArgs {
    /// Judge by the rules of this policy, a document as `nautilus policy get` shows it (JSON, YAML
    /// or TOML), instead of by --measurement and --allow-simulated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measurements", "allow_simulated"])]
    policy: Option<PathBuf>,
    /// Accept evidence of this measurement; repeat for each, `self` is this binary's
    #[arg(
        long = "measurement",
        value_name = "self|[KIND:]HEX",
        default_value = "self"
    )]
    measurements: Vec<String>,
    /// Accept simulated evidence, which proves nothing about hardware
    #[arg(long)]
    allow_simulated: bool,
    /// The public key that verifies simulated evidence [default: DIR/simulated-root.pub]
    #[arg(long, value_name = "FILE")]
    simulated_root_key: Option<PathBuf>,
    /// What vendors say of their platforms, as `nautilus attest collateral export` and `import
    /// --into` leave it; evidence of AMD and Intel cannot be judged without
    #[arg(long, value_name = "DIR")]
    endorsements: Option<PathBuf>,
}

impl JudgeArgs {
    /// The same rules as words of a command line that works in any folder.
    pub(crate) fn to_words(
        &self,
        folder_root_key: &Path,
        is_local: bool,
    ) -> anyhow::Result<Vec<String>> {
        let mut words = Vec::new();
        if let Some(path) = &self.policy {
            words.extend(["--policy".to_owned(), absolute(path)?]);
        } else {
            for measurement in &self.measurements {
                words.extend(["--measurement".to_owned(), measurement.clone()]);
            }
            if self.allow_simulated || is_local {
                words.push("--allow-simulated".to_owned());
            }
        }
        if let Some(path) = self.root_key(folder_root_key) {
            words.extend(["--simulated-root-key".to_owned(), absolute(path)?]);
        }
        if let Some(path) = &self.endorsements {
            words.extend(["--endorsements".to_owned(), absolute(path)?]);
        }
        Ok(words)
    }

    fn root_key<'a>(&'a self, folder_root_key: &'a Path) -> Option<&'a Path> {
        match &self.simulated_root_key {
            Some(named) => Some(named.as_path()),
            None => folder_root_key.exists().then_some(folder_root_key),
        }
    }

    /// The judge. `folder_root_key` is the file in the quorum's folder, which need not
    /// be there; `is_local` says that the quorum is this machine's own, made by `up`.
    pub(crate) fn judge(&self, folder_root_key: &Path, is_local: bool) -> anyhow::Result<Judge> {
        let files = match &self.endorsements {
            Some(directory) => read_directory(directory).context("--endorsements")?,
            None => BTreeMap::new(),
        };
        let policy = match &self.policy {
            Some(path) => read_policy(path).context("--policy")?.evidence,
            None => policy(&self.measurements, self.allow_simulated || is_local)?,
        };
        let endorsements = Arc::new(Endorsed::new(files));
        let verifiers = verifiers(endorsements, self.root_key(folder_root_key))?;
        Ok(Judge::new(policy, verifiers))
    }
}

/// Accepts evidence of `measurements` (`self`, or hex); simulated evidence under the root
/// whose public key is in `root_key`.
pub(crate) fn judge(
    measurements: &[String],
    allow_simulated: bool,
    root_key: Option<&Path>,
) -> anyhow::Result<Judge> {
    let policy = policy(measurements, allow_simulated)?;
    let verifiers = verifiers(Arc::new(NoEndorsements), root_key)?;
    Ok(Judge::new(policy, verifiers))
}

fn policy(measurements: &[String], allow_simulated: bool) -> anyhow::Result<EvidencePolicy> {
    let own = measure_running_binary().context("measure the running binary")?;
    let entries = measurements.iter().map(String::as_str);
    EvidencePolicy::from_text(entries, allow_simulated, TeeKind::Simulated, &own)
        .map_err(|error| Failure::Usage.error(format!("--measurement: {error}")))
}

fn verifiers(
    endorsements: Arc<dyn Endorsements>,
    root_key: Option<&Path>,
) -> anyhow::Result<Arc<Verifiers>> {
    let mut verifiers = Verifiers::with_hardware(endorsements);
    if let Some(path) = root_key {
        let key = simulated::read_root_key(path)?;
        verifiers = verifiers.with(TeeKind::Simulated, Arc::new(SimulatedVerifier::new(key)));
    }
    Ok(Arc::new(verifiers))
}

/// A path that holds in any folder, as text.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}
