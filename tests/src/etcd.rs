//! etcd's own programs against a quorum: etcdctl, and the Go client of `tests/e2e`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::quorum::Quorum;
use crate::{NodeStatus, eventually, program};

/// How etcdctl is called: where, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Etcdctl {
    environment: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Quorum {
    /// etcdctl with the administrator's certificate, on every member.
    ///
    /// # Panics
    /// When `up` left no credentials for etcd clients.
    pub fn etcdctl(&self) -> Etcdctl {
        let path = self.dir().join("etcd/etcdctl.env");
        let text = std::fs::read_to_string(&path).expect("the variables of etcd clients");
        let environment = text
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        Etcdctl {
            environment,
            flags: vec!["--dial-timeout=10s".into(), "--command-timeout=30s".into()],
        }
    }

    /// The folder with a new client certificate for `user` in `group`: `client.crt` and
    /// `client.key`.
    ///
    /// # Panics
    /// When the quorum issues none.
    pub fn client_certificate(&self, user: &str, group: &str) -> PathBuf {
        let folder = self.dir().join(format!("certificate-{user}"));
        let out = folder.display().to_string();
        let issued = self.nautilus(&[
            "certificate",
            "--user",
            user,
            "--group",
            group,
            "--out",
            &out,
        ]);
        assert!(issued.status.success(), "a certificate for {user}");
        folder
    }
}

impl Etcdctl {
    /// The same with a variable set, such as `ETCDCTL_USER`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(present, _)| present != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same as a user with a password.
    #[must_use]
    pub fn with_user(self, user: &str, password: &str) -> Self {
        self.with("ETCDCTL_USER", &format!("{user}:{password}"))
    }

    /// The same with another client certificate.
    #[must_use]
    pub fn with_certificate(self, folder: &std::path::Path) -> Self {
        let file = |name: &str| folder.join(name).display().to_string();
        self.with("ETCDCTL_CERT", &file("client.crt"))
            .with("ETCDCTL_KEY", &file("client.key"))
    }

    /// The same on one member: the n-th of the endpoints, from 1.
    ///
    /// # Panics
    /// When there is no such member.
    #[must_use]
    pub fn on(self, node: u64) -> Self {
        let endpoint = self.endpoint(node);
        self.with("ETCDCTL_ENDPOINTS", &endpoint)
    }

    /// The URL of the n-th member, from 1.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn endpoint(&self, node: u64) -> String {
        let all = self.value("ETCDCTL_ENDPOINTS");
        let at = usize::try_from(node).expect("small").saturating_sub(1);
        all.split(',').nth(at).expect("a member").to_owned()
    }

    /// The value of a variable.
    ///
    /// # Panics
    /// When it is not set.
    pub fn value(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(present, _)| present == name);
        &found.expect("a variable").1
    }

    /// A call that is yet to be made.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(program("etcdctl"));
        command.args(&self.flags).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Another program with the same variables.
    pub fn client(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Makes a call.
    ///
    /// # Panics
    /// When etcdctl can't be started.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.call_with_input(arguments, "")
    }

    /// Makes a call with `input` on its standard input.
    ///
    /// # Panics
    /// When etcdctl can't be started.
    pub fn call_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl");
        let mut stdin = child.stdin.take().expect("piped");
        // A call that refuses its arguments reads nothing.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("etcdctl's output")
    }

    /// What a call that must succeed printed.
    ///
    /// # Panics
    /// When it fails, with all it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with_input(arguments, "")
    }

    /// The same with `input` on its standard input.
    ///
    /// # Panics
    /// When it fails, with all it printed.
    #[track_caller]
    pub fn ok_with_input(&self, arguments: &[&str], input: &str) -> String {
        let output = self.call_with_input(arguments, input);
        assert!(
            output.status.success(),
            "etcdctl {arguments:?} failed: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What a call that must fail complained of.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(
            !output.status.success(),
            "etcdctl {arguments:?} was not refused: {}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }

    /// The answer of a call as JSON.
    ///
    /// # Panics
    /// When it fails, or answers no JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let printed = self.ok(&[arguments, &["--write-out=json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Calls until it succeeds: while a leader is being elected, say.
    ///
    /// # Panics
    /// When it never does.
    pub fn eventually_ok(&self, arguments: &[&str]) -> String {
        eventually("an answer", || {
            let output = self.call(arguments);
            if output.status.success() {
                Ok(text(&output.stdout))
            } else {
                Err(text(&output.stderr))
            }
        })
    }
}

/// A member that does not lead.
pub fn other_than(leader: &NodeStatus, nodes: &[NodeStatus]) -> NodeStatus {
    let other = nodes.iter().find(|node| node.id != leader.id);
    other.expect("a second member").clone()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
