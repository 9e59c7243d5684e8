//! The kubeconfig file: written for kubectl, and read back by our own commands.
//!
//! One user, and one cluster and context per address: `nautilus` is the stable
//! endpoint, `nautilus-1` and so on are the nodes themselves.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The context of the stable endpoint.
pub(crate) const DEFAULT_CONTEXT: &str = "nautilus";

/// Everything a client needs.
pub(crate) struct Kubeconfig {
    /// The quorum's authority, PEM.
    pub(crate) authority_pem: String,
    /// The user's certificate, PEM.
    pub(crate) certificate_pem: String,
    /// The user's private key, PEM.
    pub(crate) key_pem: Zeroizing<String>,
    /// The user's name, for the file only.
    pub(crate) user: String,
    /// Context name and `https://host:port`; the first is the current context.
    pub(crate) contexts: Vec<(String, String)>,
}

/// A command that kubectl runs for a credential.
pub(crate) struct ExecPlugin {
    /// The program.
    pub(crate) command: String,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

impl ExecPlugin {
    /// The text of a file whose user gets its credential from this command: no key
    /// stands in it.
    pub(crate) fn to_yaml(&self, kubeconfig: &Kubeconfig) -> String {
        let mut text = kubeconfig.without_user();
        let _ = write!(
            text,
            "users:\n- name: {}\n  user:\n    exec:\n      \
             apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: Never\n      \
             command: {}\n      args:\n",
            quoted(&kubeconfig.user),
            quoted(&self.command),
        );
        for argument in &self.arguments {
            let _ = writeln!(text, "      - {}", quoted(argument));
        }
        text
    }
}

impl Kubeconfig {
    /// The file's text (YAML).
    pub(crate) fn to_yaml(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.without_user());
        let certificate = BASE64.encode(&self.certificate_pem);
        let key = Zeroizing::new(BASE64.encode(self.key_pem.as_bytes()));
        let _ = write!(
            text,
            "users:\n- name: {}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {}\n",
            quoted(&self.user),
            key.as_str(),
        );
        text
    }

    /// Everything but the user's credentials.
    fn without_user(&self) -> String {
        let authority = BASE64.encode(&self.authority_pem);
        let user = quoted(&self.user);
        let mut text = String::from("apiVersion: v1\nkind: Config\nclusters:\n");
        // Writing to a String cannot fail.
        for (name, server) in &self.contexts {
            let _ = write!(
                text,
                "- name: {}\n  cluster:\n    server: {}\n    certificate-authority-data: {authority}\n",
                quoted(name),
                quoted(server),
            );
        }
        text.push_str("contexts:\n");
        for (name, _) in &self.contexts {
            let name = quoted(name);
            let _ = write!(
                text,
                "- name: {name}\n  context:\n    cluster: {name}\n    user: {user}\n"
            );
        }
        if let Some((name, _)) = self.contexts.first() {
            let _ = writeln!(text, "current-context: {}", quoted(name));
        }
        text
    }

    /// Reads a file of this form; the current context comes first.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "can't read the kubeconfig {}; make one with `nautilus kubeconfig`",
                path.display()
            )
        })?;
        Self::parse(&Zeroizing::new(text)).with_context(|| format!("kubeconfig {}", path.display()))
    }

    /// Parses a file's text.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = serde_yaml_ng::from_str(text)?;
        let current = file
            .contexts
            .iter()
            .find(|context| context.name == file.current_context)
            .or(file.contexts.first())
            .context("it has no context")?;
        let user = file
            .users
            .iter()
            .find(|user| user.name == current.context.user)
            .with_context(|| format!("it has no user {:?}", current.context.user))?;
        let mut contexts = Vec::new();
        let mut authority = None;
        let rest = file
            .contexts
            .iter()
            .filter(|context| context.name != current.name);
        for context in std::iter::once(current).chain(rest) {
            let Some(cluster) = file
                .clusters
                .iter()
                .find(|cluster| cluster.name == context.context.cluster)
            else {
                continue;
            };
            if authority.is_none() {
                authority.clone_from(&cluster.cluster.authority);
            }
            contexts.push((context.name.clone(), cluster.cluster.server.clone()));
        }
        Ok(Self {
            authority_pem: decoded("certificate-authority-data", authority.as_deref())?,
            certificate_pem: decoded("client-certificate-data", user.user.certificate.as_deref())?,
            key_pem: Zeroizing::new(decoded("client-key-data", user.user.key.as_deref())?),
            user: user.name.clone(),
            contexts,
        })
    }
}

fn decoded(key: &str, value: Option<&str>) -> anyhow::Result<String> {
    let value = value.ok_or_else(|| {
        anyhow!("{key} is missing: files beside the kubeconfig are not read, embed them")
    })?;
    let bytes = BASE64
        .decode(value)
        .with_context(|| format!("{key} is not base64"))?;
    String::from_utf8(bytes).with_context(|| format!("{key} is not PEM"))
}

/// A YAML double-quoted scalar, which for these values is the same as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterFields,
}

#[derive(Deserialize)]
struct ClusterFields {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    authority: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextFields,
}

#[derive(Deserialize)]
struct ContextFields {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserFields,
}

#[derive(Deserialize)]
struct UserFields {
    #[serde(rename = "client-certificate-data")]
    certificate: Option<String>,
    #[serde(rename = "client-key-data")]
    key: Option<String>,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn sample() -> Kubeconfig {
        Kubeconfig {
            authority_pem: "CA".into(),
            certificate_pem: "CERT".into(),
            key_pem: Zeroizing::new("KEY".into()),
            user: "admin".into(),
            contexts: vec![
                ("nautilus".into(), "https://127.0.0.1:7443".into()),
                ("nautilus-1".into(), "https://127.0.0.1:7444".into()),
            ],
        }
    }

    #[test]
    fn the_stable_endpoint_is_the_current_context() {
        expect![[r#"
            apiVersion: v1
            kind: Config
            clusters:
            - name: "nautilus"
              cluster:
                server: "https://127.0.0.1:7443"
                certificate-authority-data: Q0E=
            - name: "nautilus-1"
              cluster:
                server: "https://127.0.0.1:7444"
                certificate-authority-data: Q0E=
            contexts:
            - name: "nautilus"
              context:
                cluster: "nautilus"
                user: "admin"
            - name: "nautilus-1"
              context:
                cluster: "nautilus-1"
                user: "admin"
            current-context: "nautilus"
            users:
            - name: "admin"
              user:
                client-certificate-data: Q0VSVA==
                client-key-data: S0VZ
        "#]]
        .assert_eq(&sample().to_yaml());
    }

    #[test]
    fn a_user_with_a_plugin_has_no_key_in_the_file() {
        let plugin = ExecPlugin {
            command: "/opt/nautilus".into(),
            arguments: vec!["credential".into(), "--server".into(), "https://a:1".into()],
        };
        let text = plugin.to_yaml(&sample());
        let user = text.split_once("users:").expect("users").1;
        expect![[r#"

            - name: "admin"
              user:
                exec:
                  apiVersion: client.authentication.k8s.io/v1
                  interactiveMode: Never
                  command: "/opt/nautilus"
                  args:
                  - "credential"
                  - "--server"
                  - "https://a:1"
        "#]]
        .assert_eq(user);
        assert!(!text.contains("S0VZ"), "the key");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let read = Kubeconfig::parse(&sample().to_yaml()).expect("our own form");
        assert_eq!(read.contexts, sample().contexts);
        assert_eq!(read.key_pem.as_str(), "KEY");
    }

    #[test]
    fn a_kubeconfig_without_embedded_credentials_says_what_is_missing() {
        let text = sample().to_yaml().replace("client-key-data", "client-key");
        let Err(error) = Kubeconfig::parse(&text) else {
            panic!("accepted")
        };
        assert!(
            error.to_string().contains("client-key-data is missing"),
            "{error}"
        );
    }
}
