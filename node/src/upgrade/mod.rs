//! `nautilus upgrade`: a rolling upgrade to another build, without a failed request.
//!
//! ```text
//! quorum's state ─► planner ─► step ─► machines, membership, policy ─► again
//! ```
//! Keys that a build sealed open to that build alone, so that nodes are replaced and not
//! restarted: a new one joins under an id never used, and an old one goes. What is under
//! way is a row of the quorum; a `run` that was cut short is run again.

mod machines;
mod planner;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use nautilus_attest_protocol::policy::AllowedMeasurement;
use nautilus_attest_protocol::{Measurement, Policy, TeeKind};
use nautilus_attest_tee::measure_file;
use nautilus_machine::{Member, MemberRole, NewMember};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::cli::policy::{hand_in, present};
use crate::cli::status::{as_server, ask, table};
use crate::cli::{Global, Output, print};
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::kubeconfig::Kubeconfig;
use crate::policy::file::OperatorSigner;
use crate::policy::store::{NodeCode, Upgrade};
use crate::policy::unix_millis;
use crate::up::progress::Progress;
use machines::Machines;
use planner::{Build, Next, Node, State, Step};

/// Examples of `--help`.
pub(crate) const EXAMPLES: &str = "\
A new measurement is allowed, nodes are replaced one at a time, and the old measurements
are retired. The policy's operators must agree: with a threshold above 1, the others run
`nautilus policy approve` when they are asked to.

Examples:
  nautilus upgrade plan --binary ./nautilus-new --dir q
  nautilus upgrade run --binary ./nautilus-new --dir q
  nautilus upgrade status --dir q
  nautilus upgrade run --measurement snp:8f3a.. --node 4=10.0.0.4:7443 \\
      --node 5=10.0.0.5:7443 --node 6=10.0.0.6:7443 --key operator.key    elsewhere";

/// Between two looks at something awaited.
const POLL: Duration = Duration::from_millis(200);
/// For one step, unless it waits for people or machines.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// `nautilus upgrade`.
#[derive(Args)]
pub(crate) struct UpgradeArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: UpgradeCommand,
}

#[derive(Subcommand)]
enum UpgradeCommand {
    /// Show every step that is to come
    #[command(after_help = "Examples:\n  nautilus upgrade plan --binary ./nautilus-new --dir q")]
    Plan {
        #[command(flatten)]
        build: BuildArgs,
    },
    /// Take every step, and go on with an upgrade that was cut short
    #[command(after_help = "Examples:\n  nautilus upgrade run --binary ./nautilus-new --dir q")]
    Run {
        #[command(flatten)]
        build: BuildArgs,
        #[command(flatten)]
        hands: HandArgs,
    },
    /// Show how far the upgrade under way is
    #[command(after_help = "Examples:\n  nautilus upgrade status --dir q")]
    Status,
}

/// Which build is to come.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct BuildArgs {
    /// The new binary, measured as a simulated TEE measures it
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The new build's kind of TEE and measurement
    #[arg(long, value_name = "KIND:HEX", value_parser = measured)]
    measurement: Option<(TeeKind, Measurement)>,
}

/// With what the steps are taken.
#[derive(Args)]
struct HandArgs {
    /// The operator's private key [default: DIR/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A new node that somebody else starts: an unused id and its peer address
    #[arg(long = "node", value_name = "ID=HOST:PORT", value_parser = new_node)]
    nodes: Vec<NewMember>,
}

fn measured(text: &str) -> Result<(TeeKind, Measurement), String> {
    let (kind, hex) = text
        .split_once(':')
        .ok_or("write KIND:HEX, as in snp:8f3a...")?;
    let measurement = hex.parse::<Measurement>();
    Ok((
        kind.parse()?,
        measurement.map_err(|error| error.to_string())?,
    ))
}

fn new_node(text: &str) -> Result<NewMember, String> {
    let (id, address) = text
        .split_once('=')
        .ok_or("write ID=HOST:PORT, as in 4=10.0.0.4:7443")?;
    Ok(NewMember {
        id: id.parse().map_err(|_| format!("{id:?} is no node's id"))?,
        peer_address: address.to_owned(),
    })
}

impl BuildArgs {
    fn target(&self) -> anyhow::Result<(TeeKind, Measurement)> {
        match (&self.binary, &self.measurement) {
            (Some(path), _) => {
                let measurement = measure_file(path).with_context(|| path.display().to_string())?;
                Ok((TeeKind::Simulated, measurement))
            }
            (None, Some(measured)) => Ok(measured.clone()),
            (None, None) => Err(anyhow!("name --binary or --measurement")),
        }
    }
}

/// Does it.
pub(crate) async fn run(global: &Global, arguments: UpgradeArgs) -> anyhow::Result<()> {
    let quorum = Quorum::new(global)?;
    match arguments.command {
        UpgradeCommand::Plan { build } => {
            let target = build.target()?;
            let under_way = quorum.under_way().await?;
            let upgrade = match under_way {
                Some(upgrade) => upgrade,
                None => quorum.new_upgrade(target).await?,
            };
            let (steps, refused) = quorum.state(&upgrade).await?.plan();
            show_plan(&steps, refused.as_deref(), arguments.output)?;
            match refused {
                None => Ok(()),
                Some(reason) => Err(Failure::Refused.error(reason)),
            }
        }
        UpgradeCommand::Run { build, hands } => {
            let upgrade = quorum.begin(build.target()?).await?;
            let machines = Machines::new(global, build.binary.as_deref(), hands.nodes)?;
            let key = match hands.key {
                Some(path) => path,
                None => global.layout()?.operator_key(),
            };
            let signer = OperatorSigner::read(&key)?;
            Runner {
                quorum,
                upgrade,
                machines,
                signer,
                progress: Progress::start(),
            }
            .run()
            .await
        }
        UpgradeCommand::Status => status(&quorum, arguments.output).await,
    }
}

fn show_plan(steps: &[Step], refused: Option<&str>, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&serde_json::json!({
            "steps": steps, "refused": refused,
        }))?),
        Output::Table if steps.is_empty() && refused.is_none() => print("nothing is to be done"),
        Output::Table => {
            let lines = steps.iter().enumerate();
            let lines: Vec<String> = lines
                .map(|(at, step)| format!("{:3}. {}", at + 1, words(step)))
                .collect();
            print(&lines.join("\n"));
        }
    }
    Ok(())
}

fn words(step: &Step) -> String {
    match step {
        Step::Allow => "allow the new measurement".to_owned(),
        Step::Admit => "admit a node of the new build".to_owned(),
        Step::Start { id } => format!("start node {id} with the new build"),
        Step::Promote { id } => format!("give node {id} a vote once it has caught up"),
        Step::Stop { id } => format!("stop node {id} in order"),
        Step::Transfer { to } => format!("hand leadership to node {to}"),
        Step::Remove { id } => format!("take node {id} out of the membership"),
        Step::Retire => "retire the old measurements".to_owned(),
    }
}

/// `nautilus upgrade status --output json`.
#[derive(Serialize)]
struct StatusReport {
    under_way: Option<Upgrade>,
    state: Option<State>,
    steps: Vec<Step>,
    refused: Option<String>,
}

async fn status(quorum: &Quorum, output: Output) -> anyhow::Result<()> {
    let under_way = quorum.under_way().await?;
    let state = match &under_way {
        Some(upgrade) => Some(quorum.state(upgrade).await?),
        None => None,
    };
    let (steps, refused) = state.as_ref().map(State::plan).unwrap_or_default();
    if output == Output::Json {
        let report = StatusReport {
            under_way,
            state,
            steps,
            refused,
        };
        print(&serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let (Some(upgrade), Some(state)) = (under_way, state) else {
        print("no upgrade is under way");
        return Ok(());
    };
    let rows = state.nodes.iter().map(|node| {
        vec![
            node.id.to_string(),
            format!("{:?}", node.build).to_lowercase(),
            if node.votes { "voter" } else { "learner" }.to_owned(),
            if node.alive { "answers" } else { "silent" }.to_owned(),
        ]
    });
    print(&format!(
        "to {}:{}\n\n{}\n{} steps to come{}",
        upgrade.tee,
        upgrade.measurement,
        table(&["NODE", "BUILD", "ROLE", "STATE"], rows),
        steps.len(),
        refused.map_or_else(String::new, |reason| format!("; then refused: {reason}"))
    ));
    Ok(())
}

/// The quorum as seen from outside.
struct Quorum {
    kubeconfig: Kubeconfig,
    client: ApiClient,
}

/// `GET /nautilus/v1/policy/nodes`.
#[derive(Deserialize)]
struct NodesAnswer {
    nodes: Vec<NodeCode>,
}

impl Quorum {
    fn new(global: &Global) -> anyhow::Result<Self> {
        Ok(Self {
            kubeconfig: Kubeconfig::read(&global.kubeconfig_path()?)?,
            client: global.client()?,
        })
    }

    async fn under_way(&self) -> anyhow::Result<Option<Upgrade>> {
        self.client
            .get("/nautilus/v1/upgrade", None)
            .await
            .map_err(RequestError::into_failure)
    }

    async fn new_upgrade(
        &self,
        (tee, measurement): (TeeKind, Measurement),
    ) -> anyhow::Result<Upgrade> {
        let members = self.members().await?;
        let voters = members
            .iter()
            .filter(|member| member.role == MemberRole::Voter);
        Ok(Upgrade {
            tee,
            measurement,
            size: voters.count(),
            since_ms: unix_millis(),
        })
    }

    /// Begins an upgrade, or goes on with the one under way, which must lead to the same.
    async fn begin(&self, target: (TeeKind, Measurement)) -> anyhow::Result<Upgrade> {
        let asked = self.new_upgrade(target).await?;
        let under_way: Option<Upgrade> = self
            .client
            .request(Method::POST, "/nautilus/v1/upgrade", Some(&asked), None)
            .await
            .map_err(RequestError::into_failure)?;
        let under_way = under_way.context("the upgrade that was begun is not there")?;
        if (under_way.tee, &under_way.measurement) != (asked.tee, &asked.measurement) {
            return Err(Failure::Refused.error(format!(
                "an upgrade to {}:{} is under way; finish that one first",
                under_way.tee, under_way.measurement
            )));
        }
        Ok(under_way)
    }

    async fn end(&self) -> anyhow::Result<()> {
        let ended: Result<serde::de::IgnoredAny, _> = self
            .client
            .request(Method::DELETE, "/nautilus/v1/upgrade", None::<&()>, None)
            .await;
        ended.map(|_| ()).map_err(RequestError::into_failure)
    }

    async fn members(&self) -> anyhow::Result<Vec<Member>> {
        self.client
            .members()
            .await
            .map_err(RequestError::into_failure)
    }

    /// What the planner has to know.
    async fn state(&self, upgrade: &Upgrade) -> anyhow::Result<State> {
        let policy = present(&self.client).await?;
        let members = self.members().await?;
        let codes: NodesAnswer = self
            .client
            .get("/nautilus/v1/policy/nodes", None)
            .await
            .map_err(RequestError::into_failure)?;
        let looks = members
            .iter()
            .map(|member| self.look(member, &codes.nodes, upgrade));
        let is_new = |tee: TeeKind, allowed: &AllowedMeasurement| {
            tee == upgrade.tee && allowed.measurement == upgrade.measurement
        };
        let mut allowed = policy.evidence.kinds.iter().flat_map(|(tee, rules)| {
            rules
                .measurements
                .iter()
                .map(move |allowed| (*tee, allowed))
        });
        Ok(State {
            size: upgrade.size,
            new_is_allowed: allowed.clone().any(|(tee, allowed)| is_new(tee, allowed)),
            old_is_allowed: allowed.any(|(tee, allowed)| !is_new(tee, allowed)),
            nodes: futures_util::future::join_all(looks).await,
        })
    }

    async fn look(&self, member: &Member, codes: &[NodeCode], upgrade: &Upgrade) -> Node {
        let answer = match member.api_address.as_str() {
            "" => None,
            address => ask(&as_server(address), Some(&self.kubeconfig)).await,
        };
        let build = match codes.iter().find(|code| code.id == member.id) {
            None => Build::Unknown,
            Some(code) if code.tee == upgrade.tee && code.measurement == upgrade.measurement => {
                Build::New
            }
            Some(_) => Build::Old,
        };
        Node {
            id: member.id,
            votes: member.role == MemberRole::Voter,
            alive: answer.is_some(),
            leads: answer.is_some_and(|answer| answer.node.role == "leader"),
            build,
        }
    }
}

/// Takes the steps.
struct Runner {
    quorum: Quorum,
    upgrade: Upgrade,
    machines: Machines,
    signer: OperatorSigner,
    progress: Progress,
}

impl Runner {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut refused_since: Option<Instant> = None;
        loop {
            let state = match self.quorum.state(&self.upgrade).await {
                Ok(state) => state,
                // A node that stops or a leader that changes: the next look tells.
                Err(error) => {
                    self.patience(&mut refused_since, &format!("{error:#}"))?;
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            match state.next() {
                Next::Done => break,
                Next::Refuse(reason) => {
                    self.patience(&mut refused_since, &reason)?;
                    tokio::time::sleep(POLL).await;
                }
                Next::Step(step) => {
                    refused_since = None;
                    self.progress.wait(&words(&step));
                    self.take(&step, &state).await?;
                }
            }
        }
        let members = self.quorum.members().await?;
        let members: Vec<u64> = members.iter().map(|member| member.id).collect();
        self.machines
            .finish(&self.upgrade.measurement, &members)
            .await?;
        self.quorum.end().await?;
        self.progress.end();
        print("upgraded: every voter runs the new build, and the old measurements are retired");
        Ok(())
    }

    /// A refusal may pass by itself, as when a leader was just lost; not for ever.
    fn patience(&self, since: &mut Option<Instant>, reason: &str) -> anyhow::Result<()> {
        let since = since.get_or_insert_with(Instant::now);
        if since.elapsed() < STEP_TIMEOUT {
            self.progress.wait(reason);
            return Ok(());
        }
        Err(Failure::Refused.error(format!(
            "{reason}; run `nautilus upgrade run` again to go on"
        )))
    }

    async fn take(&mut self, step: &Step, state: &State) -> anyhow::Result<()> {
        match *step {
            Step::Allow => {
                let (tee, measurement) = (self.upgrade.tee, self.upgrade.measurement.clone());
                self.change_policy(|policy| {
                    policy.evidence = std::mem::take(&mut policy.evidence).allow(tee, measurement);
                })
                .await?;
            }
            Step::Retire => {
                let (tee, measurement) = (self.upgrade.tee, self.upgrade.measurement.clone());
                self.change_policy(|policy| {
                    for (kind, rules) in &mut policy.evidence.kinds {
                        rules
                            .measurements
                            .retain(|allowed| *kind == tee && allowed.measurement == measurement);
                    }
                    let kinds = &mut policy.evidence.kinds;
                    kinds.retain(|_, rules| !rules.measurements.is_empty());
                })
                .await?;
            }
            Step::Admit => {
                let ids = state.nodes.iter().map(|node| node.id);
                let accepts = self.old_measurements().await?;
                let node = self.machines.new_node(ids.collect(), accepts)?;
                self.request(&format!("admitting node {}", node.id), async |client| {
                    client.add_member(&node).await
                })
                .await?;
            }
            Step::Start { id } => self.start(id).await?,
            Step::Promote { id } => {
                self.request(&words(step), async |client| client.promote_member(id).await)
                    .await?;
            }
            Step::Stop { id } => self.machines.stop(id, &self.progress).await?,
            Step::Transfer { to } => {
                self.request(&words(step), async |client| {
                    client.transfer_leadership(to).await
                })
                .await?;
            }
            Step::Remove { id } => {
                self.request(&words(step), async |client| client.remove_member(id).await)
                    .await?;
                self.machines.removed(id, &self.progress).await?;
            }
        }
        self.progress.say(&format!("done: {}", words(step)));
        Ok(())
    }

    /// Every measurement of the policy but the new one: what a new node must accept to
    /// join.
    async fn old_measurements(&self) -> anyhow::Result<Vec<String>> {
        let policy = present(&self.quorum.client).await?;
        let kinds = policy.evidence.kinds.iter();
        let all = kinds.flat_map(|(tee, rules)| {
            let named = rules.measurements.iter();
            named.map(move |allowed| format!("{tee}:{}", allowed.measurement))
        });
        Ok(all.collect())
    }

    /// Starts a node and waits until it answers as a member whose evidence is known.
    async fn start(&mut self, id: u64) -> anyhow::Result<()> {
        self.machines.start(id, &self.progress)?;
        let deadline = Instant::now() + self.machines.start_patience();
        loop {
            let state = self.quorum.state(&self.upgrade).await;
            let node = state.ok().and_then(|state| {
                let mut nodes = state.nodes.into_iter();
                nodes.find(|node| node.id == id)
            });
            if node.is_some_and(|node| node.alive && node.build == Build::New) {
                return Ok(());
            }
            self.machines.check(id)?;
            if Instant::now() >= deadline {
                return Err(Failure::Unavailable.error(format!(
                    "node {id} does not answer as a member of the new build; read its log, and run \
                     `nautilus upgrade run` again to go on"
                )));
            }
            self.progress.wait(&format!("waiting for node {id}"));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Signs a change and waits until enough operators have: it may take people.
    async fn change_policy(&self, change: impl FnOnce(&mut Policy)) -> anyhow::Result<()> {
        let mut document = present(&self.quorum.client).await?;
        change(&mut document);
        document.epoch += 1;
        let (epoch, digest) = (document.epoch, document.digest());
        let answer = hand_in(&self.quorum.client, document, &self.signer).await?;
        if answer.applied {
            return Ok(());
        }
        let short = answer.digest.get(..16).unwrap_or(&answer.digest);
        self.progress.say(&format!(
            "{} more operators must run `nautilus policy approve {short}`",
            answer.needed.saturating_sub(answer.given)
        ));
        loop {
            tokio::time::sleep(POLL).await;
            let Ok(present) = present(&self.quorum.client).await else {
                continue;
            };
            if present.digest() == digest {
                return Ok(());
            }
            if present.epoch >= epoch {
                return Err(Failure::Refused.error(
                    "another change of the policy came before; run `nautilus upgrade run` again",
                ));
            }
            self.progress.wait("waiting for the operators");
        }
    }

    /// Asks until it is done, as long as a refusal may pass.
    async fn request(
        &self,
        what: &str,
        mut request: impl AsyncFnMut(&ApiClient) -> Result<(), RequestError>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            match request(&self.quorum.client).await {
                Ok(()) => return Ok(()),
                Err(
                    error @ RequestError::Refused {
                        code: 401 | 403, ..
                    },
                ) => return Err(error.into_failure()),
                Err(error) if Instant::now() >= deadline => return Err(error.into_failure()),
                Err(error) => self.progress.wait(&format!("{what}: {error}")),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
