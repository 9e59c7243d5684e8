//! The peer: kube-scheduler and kube-apiserver over three members of etcd, as they are, but
//! for the limits of kube-scheduler's client, which are lifted.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use zeroize::Zeroizing;

use crate::client::ApiClient;
use crate::kubeconfig::Kubeconfig;

/// Members of etcd.
const MEMBERS: usize = 3;
/// For all of it to serve.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(200);

/// The running processes; dropped, they are killed.
pub(super) struct Peer {
    processes: Vec<Child>,
    kubeconfig: Kubeconfig,
    server: String,
}

impl Peer {
    /// Starts it; `programs` holds `etcd`, `kube-apiserver` and `kube-scheduler`.
    pub(super) async fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let ports = free_ports(2 * MEMBERS + 1)?;
        let server = format!("https://127.0.0.1:{}", ports[2 * MEMBERS]);
        let mut peer = Self {
            processes: Vec::new(),
            kubeconfig: certificates(folder, &server)?,
            server,
        };
        let start = |name: &str, log: &str, arguments: &[String]| {
            let path = programs.join(name);
            Command::new(&path)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(folder.join(log))?)
                .spawn()
                .with_context(|| format!("cannot start {}", path.display()))
        };
        let members: Vec<&[u16]> = ports.chunks_exact(2).take(MEMBERS).collect();
        for at in 0..MEMBERS {
            let arguments = member(&members, at, folder);
            peer.processes
                .push(start("etcd", &format!("m{at}.log"), &arguments)?);
        }
        let arguments = api_server(&members, ports[2 * MEMBERS], folder);
        peer.processes
            .push(start("kube-apiserver", "kube-apiserver.log", &arguments)?);
        peer.wait_until_ready().await?;
        let file = |name: &str| folder.join(name).display().to_string();
        fs::write(folder.join("kubeconfig"), peer.kubeconfig.to_yaml())?;
        let configuration = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             leaderElection:\n  leaderElect: false\nclientConnection:\n  kubeconfig: {}\n  \
             qps: 100000\n  burst: 100000\n",
            file("kubeconfig")
        );
        fs::write(folder.join("scheduler.yaml"), configuration)?;
        let arguments = ["--config", &file("scheduler.yaml"), "--secure-port", "0"];
        let arguments = arguments.map(str::to_owned);
        peer.processes
            .push(start("kube-scheduler", "kube-scheduler.log", &arguments)?);
        Ok(peer)
    }

    /// Its address.
    pub(super) fn server(&self) -> String {
        self.server.clone()
    }

    /// Credentials for it.
    pub(super) fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// Ends it. One of its processes that ended by itself is an error.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                bail!("a process of the peer ended by itself: {status}");
            }
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = ApiClient::new(&self.server, &self.kubeconfig)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !client.ready(POLL * 5).await {
            for process in &mut self.processes {
                if let Some(status) = process.try_wait()? {
                    bail!("a process of the peer ended as it started: {status}");
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "kube-apiserver is not ready after {} s",
                    START_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A member's arguments: in clear, which favours it.
fn member(members: &[&[u16]], at: usize, folder: &Path) -> Vec<String> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let all = members.iter().enumerate();
    let all: Vec<String> = all
        .map(|(at, own)| format!("m{at}={}", url(own[1])))
        .collect();
    let (client, peer) = (url(members[at][0]), url(members[at][1]));
    let data = folder.join(format!("m{at}")).display().to_string();
    arguments(&[
        ("--name", &format!("m{at}")),
        ("--data-dir", &data),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", &all.join(",")),
        ("--log-level", "warn"),
    ])
}

fn api_server(members: &[&[u16]], port: u16, folder: &Path) -> Vec<String> {
    let etcd = members
        .iter()
        .map(|own| format!("http://127.0.0.1:{}", own[0]));
    let file = |name: &str| folder.join(name).display().to_string();
    arguments(&[
        ("--etcd-servers", &etcd.collect::<Vec<_>>().join(",")),
        ("--bind-address", "127.0.0.1"),
        ("--secure-port", &port.to_string()),
        ("--authorization-mode", "RBAC"),
        ("--service-cluster-ip-range", "10.0.0.0/16"),
        ("--service-account-issuer", "https://bench.test"),
        // No controller makes the accounts that it asks for.
        ("--disable-admission-plugins", "ServiceAccount"),
        ("--cert-dir", &file("serving")),
        ("--client-ca-file", &file("ca.pem")),
        ("--tls-cert-file", &file("server.pem")),
        ("--tls-private-key-file", &file("server.key")),
        ("--service-account-signing-key-file", &file("accounts.key")),
        ("--service-account-key-file", &file("accounts.pub")),
    ])
}

fn arguments(pairs: &[(&str, &str)]) -> Vec<String> {
    let pairs = pairs.iter();
    pairs
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect()
}

fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let ports = listeners.iter().map(|own| Ok(own.local_addr()?.port()));
    ports.collect()
}

/// An authority with a server's and an administrator's certificate, and the key of service
/// accounts; what the server needs is written to the folder.
fn certificates(folder: &Path, server: &str) -> anyhow::Result<Kubeconfig> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters
        .distinguished_name
        .push(DnType::CommonName, "bench");
    let authority = parameters.self_signed(&key)?;
    let issuer = Issuer::new(parameters, key);
    let signed = |parameters: CertificateParams| -> anyhow::Result<(String, Zeroizing<String>)> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    };
    let mut parameters = CertificateParams::new(["127.0.0.1".to_owned()])?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = signed(parameters)?;
    let accounts = KeyPair::generate()?;
    for (name, content) in [
        ("ca.pem", authority.pem()),
        ("server.pem", certificate),
        ("server.key", key.to_string()),
        ("accounts.key", accounts.serialize_pem()),
        ("accounts.pub", accounts.public_key_pem()),
    ] {
        fs::write(folder.join(name), content)?;
    }
    let mut parameters = CertificateParams::default();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, "bench");
    name.push(DnType::OrganizationName, "system:masters");
    let (certificate_pem, key_pem) = signed(parameters)?;
    Ok(Kubeconfig {
        authority_pem: authority.pem(),
        certificate_pem,
        key_pem,
        user: "bench".to_owned(),
        contexts: vec![("bench".to_owned(), server.to_owned())],
    })
}
