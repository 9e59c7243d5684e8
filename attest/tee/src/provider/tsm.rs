//! Reports through configfs-tsm (Linux 6.7, `Documentation/ABI/testing/configfs-tsm-report`):
//! one folder a request, so that nobody else's write comes between, and the
//! generation checked all the same.
//!
//! configfs commits a binary attribute when it is closed and has no way to say that it
//! did not; the generation, which counts the writes that were taken, is that way.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nautilus_attest_protocol::ReportData;

use super::kernel::Kernel;

const FOLDER: &str = "sys/kernel/config/tsm/report";
/// The largest report with its certificates: the kernel's own bound (TSM_OUTBLOB_MAX).
const BLOB_MAX_BYTES: usize = 32 * 1024;
const LINE_MAX_BYTES: usize = 4096;
/// Times that a write which others raced is tried.
const ATTEMPTS: u32 = 5;

/// Tells apart this process's requests.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What came of one request.
pub(super) struct TsmReport {
    /// Who made it: `sev_guest`, `tdx_guest`.
    pub(super) provider: String,
    /// The report or quote.
    pub(super) report: Vec<u8>,
    /// What the host has beside it, certificates say; often nothing.
    pub(super) auxiliary: Vec<u8>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum TsmError {
    #[error(
        "/{FOLDER} is not there (Linux before 6.7, no configfs mounted, or CONFIG_TSM_REPORTS off)"
    )]
    Absent,
    #[error("/{FOLDER} takes no request: {0} (no TEE's driver is behind it, or no right to)")]
    NoProvider(#[source] io::Error),
    #[error("{attribute} of configfs-tsm: {source}")]
    Attribute {
        attribute: &'static str,
        source: io::Error,
    },
    #[error(
        "the report was raced by others {ATTEMPTS} times; its last generation was {seen}, not {expected}"
    )]
    Raced { seen: u64, expected: u64 },
}

/// Who answers there.
pub(super) fn provider(kernel: &dyn Kernel) -> Result<String, TsmError> {
    Request::open(kernel)?.line("provider")
}

/// A report over `report_data`. May block for as long as the host takes.
pub(super) fn report(kernel: &dyn Kernel, report_data: &ReportData) -> Result<TsmReport, TsmError> {
    let request = Request::open(kernel)?;
    let mut last = (0, 0);
    for _ in 0..ATTEMPTS {
        let expected = request.generation()?.wrapping_add(1);
        request.write("inblob", report_data)?;
        let report = match request.blob("outblob") {
            Err(TsmError::Attribute { source, .. }) if is_raced(&source) => {
                last = (request.generation()?, expected);
                continue;
            }
            report => report?,
        };
        let auxiliary = if kernel.exists(&request.path("auxblob")) {
            request.blob("auxblob")?
        } else {
            Vec::new()
        };
        let provider = request.line("provider")?;
        let seen = request.generation()?;
        if seen == expected {
            return Ok(TsmReport {
                provider,
                report,
                auxiliary,
            });
        }
        last = (seen, expected);
    }
    Err(TsmError::Raced {
        seen: last.0,
        expected: last.1,
    })
}

/// `EBUSY` and `EWOULDBLOCK` say that the inputs changed, `EINTR` that we were woken.
fn is_raced(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A folder of our own, gone when this is.
struct Request<'a> {
    kernel: &'a dyn Kernel,
    folder: String,
}

impl<'a> Request<'a> {
    fn open(kernel: &'a dyn Kernel) -> Result<Self, TsmError> {
        if !kernel.exists(FOLDER) {
            return Err(TsmError::Absent);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{FOLDER}/nautilus-{}-{number}", std::process::id());
        kernel
            .create_folder(&folder)
            .map_err(TsmError::NoProvider)?;
        Ok(Self { kernel, folder })
    }

    fn path(&self, attribute: &str) -> String {
        format!("{}/{attribute}", self.folder)
    }

    fn write(&self, attribute: &'static str, bytes: &[u8]) -> Result<(), TsmError> {
        self.kernel
            .write(&self.path(attribute), bytes)
            .map_err(|source| TsmError::Attribute { attribute, source })
    }

    fn blob(&self, attribute: &'static str) -> Result<Vec<u8>, TsmError> {
        self.kernel
            .read(&self.path(attribute), BLOB_MAX_BYTES)
            .map_err(|source| TsmError::Attribute { attribute, source })
    }

    fn line(&self, attribute: &'static str) -> Result<String, TsmError> {
        let bytes = self
            .kernel
            .read(&self.path(attribute), LINE_MAX_BYTES)
            .map_err(|source| TsmError::Attribute { attribute, source })?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn generation(&self) -> Result<u64, TsmError> {
        let line = self.line("generation")?;
        line.parse().map_err(|_| TsmError::Attribute {
            attribute: "generation",
            source: io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} is no number")),
        })
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        // What stays behind is one empty folder under a name never used again.
        let _ = self.kernel.remove_folder(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stand_in::{Behind, StandIn};

    #[test]
    fn a_report_is_over_what_was_asked() {
        let kernel = StandIn::with_tsm(Behind::Snp);
        let made = report(&kernel, &[9; 64]).unwrap();
        assert_eq!(made.provider, "sev_guest");
        assert_eq!(made.report[0x50..0x90], [9; 64]);
        assert!(kernel.requests_open() == 0, "the folder is removed");
    }

    #[test]
    fn a_raced_report_is_made_again() {
        let kernel = StandIn::with_tsm(Behind::Snp);
        kernel.race_next(2);
        let made = report(&kernel, &[9; 64]).unwrap();
        assert_eq!(made.report[0x50..0x90], [9; 64]);
        kernel.race_next(ATTEMPTS);
        let Err(error) = report(&kernel, &[9; 64]) else {
            panic!("a raced report was taken")
        };
        assert!(matches!(error, TsmError::Raced { .. }), "{error}");
        assert!(kernel.requests_open() == 0);
    }

    #[test]
    fn a_write_that_configfs_dropped_is_noticed() {
        let kernel = StandIn::with_tsm(Behind::Snp);
        report(&kernel, &[1; 64]).unwrap();
        kernel.drop_writes(true);
        assert!(report(&kernel, &[2; 64]).is_err());
    }

    #[test]
    fn a_kernel_without_it_is_told_from_one_without_a_tee() {
        assert!(matches!(
            report(&StandIn::bare(), &[0; 64]),
            Err(TsmError::Absent)
        ));
        assert!(matches!(
            provider(&StandIn::with_tsm(Behind::Nothing)),
            Err(TsmError::NoProvider(_))
        ));
    }
}
