//! The peer: an unmodified kube-apiserver over three etcd members.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rcgen::KeyPair;
use rustls_pki_types::ServerName;

use super::side::ApiSide;
use crate::drive::Endpoint;
use crate::etcd::Etcd;
use crate::side::Side as _;

/// A kube-apiserver; dropped, it is killed, and its members after it.
pub struct Kube {
    server: Child,
    port: u16,
    members: Etcd,
}

impl Kube {
    /// Starts members and server; `programs` holds `etcd` and `kube-apiserver`. The members
    /// must serve before the server does, which waits for them.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut members = Etcd::prepare(programs, folder)?;
        members.start()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let accounts = KeyPair::generate()?;
        let private = folder.join("accounts.key");
        let public = folder.join("accounts.pub");
        fs::write(&private, accounts.serialize_pem())?;
        fs::write(&public, accounts.public_key_pem())?;
        let etcd: Vec<String> = members
            .endpoints()
            .iter()
            .map(|endpoint| format!("https://127.0.0.1:{}", endpoint.port))
            .collect();
        let log = fs::File::create(folder.join("kube-apiserver.log"))?;
        let mut command = Command::new(programs.join("kube-apiserver"));
        command
            .args(["--etcd-servers", &etcd.join(",")])
            .args(["--bind-address", "127.0.0.1"])
            .args(["--secure-port", &port.to_string()])
            .args(["--authorization-mode", "RBAC"])
            .args(["--service-cluster-ip-range", "10.0.0.0/16"])
            .args(["--service-account-issuer", "https://bench.test"])
            // No controller makes the accounts that it asks for.
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .arg("--cert-dir")
            .arg(folder.join("serving"));
        let certificates = members.certificates();
        for (flag, file) in [
            ("--etcd-cafile", certificates.join("ca.pem")),
            ("--etcd-certfile", certificates.join("client.pem")),
            ("--etcd-keyfile", certificates.join("client.key")),
            ("--client-ca-file", certificates.join("ca.pem")),
            ("--tls-cert-file", certificates.join("member.pem")),
            ("--tls-private-key-file", certificates.join("member.key")),
            ("--service-account-signing-key-file", private),
            ("--service-account-key-file", public),
        ] {
            command.arg(flag).arg(file);
        }
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            server,
            port,
            members,
        })
    }
}

impl ApiSide for Kube {
    fn name(&self) -> &'static str {
        "kube-apiserver"
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = self.members.endpoints().swap_remove(0);
        endpoint.port = self.port;
        endpoint.server_name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        endpoint
    }

    fn server(&self) -> u32 {
        self.server.id()
    }

    fn processes(&self) -> Vec<u32> {
        let mut all = self.members.processes();
        all.push(self.server.id());
        all
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
