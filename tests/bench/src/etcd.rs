//! The peer: three etcd members of the present release, started as its guide says, with
//! certificates of an authority made for the occasion.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::drive::Endpoint;
use crate::side::Side;

/// Members.
const MEMBERS: usize = 3;
/// What a member may keep; etcd's own limit is lower than the largest bench needs.
const QUOTA_BYTES: u64 = 16 << 30;
/// For a member to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at an ending process.
const POLL: Duration = Duration::from_millis(5);

/// Three members and their folder.
pub struct Etcd {
    programs: PathBuf,
    folder: PathBuf,
    certificates: PathBuf,
    tls: Arc<ClientConfig>,
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
}

impl Etcd {
    /// Prepares members whose data will be in `folder`; `programs` holds `etcd`, `etcdctl`
    /// and `etcdutl`.
    ///
    /// # Errors
    /// When the folder can't be written or no ports are free.
    pub fn prepare(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let certificates = folder.join("certificates");
        fs::create_dir_all(&certificates)?;
        let tls = make_certificates(&certificates)?;
        let ports = free_ports(MEMBERS * 2)?;
        Ok(Self {
            programs: programs.to_owned(),
            folder: folder.to_owned(),
            certificates,
            tls: Arc::new(tls),
            ports: ports.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
            members: (0..MEMBERS).map(|_| None).collect(),
        })
    }

    /// Where the certificates are.
    pub fn certificates(&self) -> &Path {
        &self.certificates
    }

    fn initial_cluster(&self) -> String {
        let members = self.ports.iter().enumerate();
        members
            .map(|(at, (_, peer))| format!("m{at}=https://127.0.0.1:{peer}"))
            .collect::<Vec<_>>()
            .join(",")
    }

    fn data(&self, at: usize) -> PathBuf {
        self.folder.join(format!("m{at}"))
    }

    fn command(&self, at: usize) -> Command {
        let (client, peer) = self.ports[at];
        let file = |name: &str| self.certificates.join(name);
        let mut command = Command::new(self.programs.join("etcd"));
        command
            .args(["--name", &format!("m{at}")])
            .arg("--data-dir")
            .arg(self.data(at))
            .args([
                "--listen-client-urls",
                &format!("https://127.0.0.1:{client}"),
            ])
            .args([
                "--advertise-client-urls",
                &format!("https://127.0.0.1:{client}"),
            ])
            .args(["--listen-peer-urls", &format!("https://127.0.0.1:{peer}")])
            .args([
                "--initial-advertise-peer-urls",
                &format!("https://127.0.0.1:{peer}"),
            ])
            .args(["--initial-cluster", &self.initial_cluster()])
            .args([
                "--initial-cluster-state",
                "new",
                "--initial-cluster-token",
                "bench",
            ])
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .args([
                "--log-level",
                "warn",
                "--quota-backend-bytes",
                &QUOTA_BYTES.to_string(),
            ]);
        for (flag, name) in [
            ("--trusted-ca-file", "ca.pem"),
            ("--cert-file", "member.pem"),
            ("--key-file", "member.key"),
            ("--peer-trusted-ca-file", "ca.pem"),
            ("--peer-cert-file", "member.pem"),
            ("--peer-key-file", "member.key"),
        ] {
            command.arg(flag).arg(file(name));
        }
        command
    }
}

impl Side for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn start(&mut self) -> anyhow::Result<()> {
        for at in 0..MEMBERS {
            if self.members[at].is_some() {
                continue;
            }
            let log = fs::File::options()
                .create(true)
                .append(true)
                .open(self.folder.join(format!("m{at}.log")))?;
            let mut command = self.command(at);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let child = command
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))?;
            self.members[at] = Some(child);
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        for member in self.members.iter().flatten() {
            signal(member, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for member in &mut self.members {
            let Some(mut child) = member.take() else {
                continue;
            };
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                    bail!("an etcd member did not stop in {STOP_TIMEOUT:?}");
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let mut child = self.members[at].take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let ports = self.ports.iter();
        ports
            .map(|(client, _)| Endpoint {
                port: *client,
                tls: Arc::clone(&self.tls),
                server_name: ServerName::IpAddress(Ipv4Addr::LOCALHOST.into()),
            })
            .collect()
    }

    fn processes(&self) -> Vec<u32> {
        self.members.iter().flatten().map(Child::id).collect()
    }

    fn save_snapshot(&self, file: &Path) -> anyhow::Result<()> {
        let (port, _) = self.ports[0];
        run(Command::new(self.programs.join("etcdctl"))
            .arg("--endpoints")
            .arg(format!("https://127.0.0.1:{port}"))
            .arg("--cacert")
            .arg(self.certificates.join("ca.pem"))
            .arg("--cert")
            .arg(self.certificates.join("client.pem"))
            .arg("--key")
            .arg(self.certificates.join("client.key"))
            .args(["snapshot", "save"])
            .arg(file))
    }

    fn restore(&mut self, file: &Path, folder: &Path) -> anyhow::Result<()> {
        ensure!(self.processes().is_empty(), "the members still run");
        fs::create_dir_all(folder)?;
        folder.clone_into(&mut self.folder);
        for at in 0..MEMBERS {
            let (_, peer) = self.ports[at];
            run(Command::new(self.programs.join("etcdutl"))
                .args(["snapshot", "restore"])
                .arg(file)
                .args(["--name", &format!("m{at}")])
                .args(["--initial-cluster", &self.initial_cluster()])
                .args(["--initial-cluster-token", "restored"])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("https://127.0.0.1:{peer}"),
                ])
                .arg("--data-dir")
                .arg(self.data(at)))?;
        }
        self.start()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Runs a tool, which must succeed.
///
/// # Errors
/// With what it printed.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("a process id")?, signal)?)
}

/// Ports on which nothing listens now.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()?;
    let ports = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

/// Writes an authority, a certificate for the members and one for the client, and returns
/// the client's side of TLS.
fn make_certificates(folder: &Path) -> anyhow::Result<ClientConfig> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "bench authority");
    let authority_key = KeyPair::generate()?;
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);
    fs::write(folder.join("ca.pem"), authority.pem())?;

    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    fs::write(
        folder.join("member.pem"),
        params.signed_by(&key, &issuer)?.pem(),
    )?;
    fs::write(folder.join("member.key"), key.serialize_pem())?;

    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "root");
    // What a kube-apiserver over these members takes for an administrator.
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let client = params.signed_by(&key, &issuer)?;
    fs::write(folder.join("client.pem"), client.pem())?;
    fs::write(folder.join("client.key"), key.serialize_pem())?;

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_client_auth_cert(vec![client.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
