//! What a client accepts as the quorum's code, from its flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use nautilus_attest_protocol::{
    Claims, Endorsements, EvidencePolicy, NoEndorsements, Refused, ReportData, TeeKind,
    claims_for_relying_party,
};
use nautilus_attest_tee::{SimulatedVerifier, Verifiers, measure_running_binary};

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
        let judge = Judge::with_endorsements(
            &self.measurements,
            self.allow_simulated || is_local,
            self.root_key(folder_root_key),
            Arc::new(Endorsed::new(files)),
        )?;
        Ok(match &self.policy {
            Some(path) => Judge {
                policy: read_policy(path).context("--policy")?.evidence,
                ..judge
            },
            None => judge,
        })
    }
}

/// What a client accepts as the quorum's code.
#[derive(Clone)]
pub(crate) struct Judge {
    policy: EvidencePolicy,
    verifier: Arc<Verifiers>,
}

impl Judge {
    /// Accepts evidence of `measurements` (`self`, or hex); simulated evidence under
    /// the root whose public key is in `root_key`.
    pub(crate) fn new(
        measurements: &[String],
        allow_simulated: bool,
        root_key: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let none = Arc::new(NoEndorsements);
        Self::with_endorsements(measurements, allow_simulated, root_key, none)
    }

    fn with_endorsements(
        measurements: &[String],
        allow_simulated: bool,
        root_key: Option<&Path>,
        endorsements: Arc<dyn Endorsements>,
    ) -> anyhow::Result<Self> {
        let own = measure_running_binary().context("measure the running binary")?;
        let entries = measurements.iter().map(String::as_str);
        let policy = EvidencePolicy::from_text(entries, allow_simulated, TeeKind::Simulated, &own)
            .map_err(|error| Failure::Usage.error(format!("--measurement: {error}")))?;
        let mut verifier = Verifiers::with_hardware(endorsements);
        if let Some(path) = root_key {
            let key = simulated::read_root_key(path)?;
            verifier = verifier.with(TeeKind::Simulated, Arc::new(SimulatedVerifier::new(key)));
        }
        Ok(Self {
            policy,
            verifier: Arc::new(verifier),
        })
    }

    /// The claims of evidence that is genuine and answers `expected`.
    ///
    /// # Errors
    /// Those of [`nautilus_attest_protocol::Verifier::verify`], and `Replay`.
    pub(crate) fn claims(&self, evidence: &[u8], expected: &ReportData) -> Result<Claims, Refused> {
        claims_for_relying_party(evidence, expected, self.verifier.as_ref(), now_ms())
    }

    /// Whether such code is accepted.
    ///
    /// # Errors
    /// Those of [`EvidencePolicy::judge`].
    pub(crate) fn policy(&self, claims: &Claims) -> Result<(), Refused> {
        self.policy.judge(claims, now_ms())
    }

    /// The claims of evidence that is genuine, over `expected`, and good enough as of a
    /// moment in milliseconds since 1970.
    pub(crate) fn evidence(
        &self,
        encoded: &[u8],
        expected: &ReportData,
        at_ms: u64,
    ) -> Result<Claims, Refused> {
        let claims = claims_for_relying_party(encoded, expected, self.verifier.as_ref(), at_ms)?;
        self.policy.judge(&claims, at_ms)?;
        Ok(claims)
    }

    /// Both at once.
    pub(crate) fn accept(&self, evidence: &[u8], expected: &ReportData) -> Result<(), Refused> {
        self.policy(&self.claims(evidence, expected)?)
    }
}

/// A path that holds in any folder, as text.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The time of judgement: milliseconds since the epoch. A clock before it reads as the
/// epoch, at which nothing is valid yet.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
