//! `nautilus certificate`: a client certificate for a user whom the administrator names.
//!
//! The key is made here and never leaves; the quorum sees the request alone.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Global, print};
use crate::data_dir::write_durably;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Clients of the etcd face need the group nautilus:etcd; once authentication is enabled there,
the user's name is that of the etcd user.

Examples:
  nautilus certificate --user alice --group nautilus:etcd --out alice
  etcdctl --cacert alice/ca.crt --cert alice/client.crt --key alice/client.key get k";

/// `nautilus certificate`.
#[derive(Args)]
pub(crate) struct CertificateArgs {
    /// The user: the certificate's common name
    #[arg(long, value_name = "NAME")]
    user: String,
    /// A group of the user: an organization of the certificate; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// Write ca.crt, client.crt and client.key into this folder, made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Request<'a> {
    csr: &'a str,
    user: &'a str,
    groups: &'a [String],
}

#[derive(Deserialize)]
struct Answer {
    ca: String,
    certificate: String,
}

/// Gets the certificate and writes it beside its key.
pub(super) async fn run(global: &Global, arguments: CertificateArgs) -> anyhow::Result<()> {
    let client = global.client()?;
    let key = rcgen::KeyPair::generate().context("make a key")?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    let csr = crate::credentials::certificate_request(&key_pem)?;
    let request = Request {
        csr: &csr,
        user: &arguments.user,
        groups: &arguments.groups,
    };
    let answer: Answer = client
        .request(
            Method::POST,
            "/nautilus/v1/certificates",
            Some(&request),
            None,
        )
        .await
        .map_err(crate::client::RequestError::into_failure)?;
    std::fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let files = [
        ("ca.crt", answer.ca.as_bytes(), 0o644),
        ("client.crt", answer.certificate.as_bytes(), 0o644),
        ("client.key", key_pem.as_bytes(), 0o600),
    ];
    for (name, text, mode) in files {
        let path = arguments.out.join(name);
        write_durably(&path, text, mode).with_context(|| path.display().to_string())?;
    }
    print(&format!(
        "wrote ca.crt, client.crt and client.key into {}",
        arguments.out.display()
    ));
    Ok(())
}
