//! What a guest asks of its kernel, and the only place where it is asked.
//!
//! The kernel's side is a contract of bytes: files of configfs and of Gramine, and
//! three ioctls whose structures stand in Linux's `include/uapi/linux/{nsm,sev-guest,
//! tdx-guest}.h`. Everything above speaks through [`Kernel`], so that it runs
//! against a stand-in in tests; [`Linux`] is what release builds have.

#![expect(
    unsafe_code,
    reason = "an ioctl is a contract with a driver that no type can hold"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// The Nitro security module.
pub(crate) const NSM: &str = "dev/nsm";
/// The SEV-SNP guest device.
pub(crate) const SEV_GUEST: &str = "dev/sev-guest";
/// The TDX guest device.
pub(crate) const TDX_GUEST: &str = "dev/tdx_guest";

/// Bytes of a report of the TDX module (TDREPORT_STRUCT).
pub(crate) const TDREPORT_BYTES: usize = 1024;
/// The largest answer of the NSM (NSM_RESPONSE_MAX_SIZE).
const NSM_RESPONSE_MAX_BYTES: usize = 0x3000;
/// Version of the messages to the SEV firmware.
const SEV_MESSAGE_VERSION: u8 = 1;

/// Requests to the SEV-SNP firmware: the numbers of their ioctls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SevGuest {
    /// `SNP_GET_REPORT`: 96 bytes in, 4000 out.
    Report,
    /// `SNP_GET_DERIVED_KEY`: 32 bytes in, 64 out.
    DerivedKey,
}

impl SevGuest {
    /// Bytes of the structures that the driver reads and writes.
    pub(crate) const fn sizes(self) -> (usize, usize) {
        match self {
            Self::Report => (96, 4000),
            Self::DerivedKey => (32, 64),
        }
    }
}

/// The kernel's side. Paths are relative to the root of the file system.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Whether there is such a file or folder.
    fn exists(&self, path: &str) -> bool;
    /// The whole of a file, which must not be longer than `limit` bytes.
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>>;
    /// Writes to a file that is there, in one piece.
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a folder that is not there.
    fn create_folder(&self, path: &str) -> io::Result<()>;
    /// Removes a folder of configfs with the attributes in it.
    fn remove_folder(&self, path: &str) -> io::Result<()>;
    /// One request to the NSM, CBOR both ways.
    fn nsm(&self, request: &[u8]) -> io::Result<Vec<u8>>;
    /// One request to the SEV-SNP firmware; sizes as [`SevGuest::sizes`] has them.
    fn sev_guest(&self, command: SevGuest, request: &[u8], response: &mut [u8]) -> io::Result<()>;
    /// A report of the TDX module over `report_data`.
    fn tdx_report(&self, report_data: &[u8; 64]) -> io::Result<Vec<u8>>;
}

/// The running kernel, seen from a root folder.
pub(crate) struct Linux {
    root: PathBuf,
}

impl Linux {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn device(&self, path: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join(path))
    }
}

impl Kernel for Linux {
    fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.root.join(path))?;
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {limit} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.root.join(path))?;
        // Attributes take one write; a second one would be another value.
        let written = file.write(bytes)?;
        if written != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn create_folder(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir(self.root.join(path))
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        std::fs::remove_dir(self.root.join(path))
    }

    fn nsm(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        const RAW: Opcode = opcode::read_write::<NsmRaw>(0x0a, 0);
        let device = self.device(NSM)?;
        let mut response = vec![0; NSM_RESPONSE_MAX_BYTES];
        let mut raw = NsmRaw {
            request: NsmBuffer::over(request.as_ptr(), request.len()),
            response: NsmBuffer::over(response.as_mut_ptr(), response.len()),
        };
        // SAFETY: NSM_IOCTL_RAW takes a struct nsm_raw; both buffers outlive the call,
        // the driver writes at most the length of the second into it and puts the
        // length written there.
        unsafe { ioctl(&device, Updater::<RAW, NsmRaw>::new(&mut raw)) }?;
        let written = usize::try_from(raw.response.bytes).unwrap_or(usize::MAX);
        response.truncate(written);
        Ok(response)
    }

    fn sev_guest(&self, command: SevGuest, request: &[u8], response: &mut [u8]) -> io::Result<()> {
        const REPORT: Opcode = opcode::read_write::<SevRequest>(b'S', 0);
        const DERIVED_KEY: Opcode = opcode::read_write::<SevRequest>(b'S', 1);
        if (request.len(), response.len()) != command.sizes() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let device = self.device(SEV_GUEST)?;
        let mut message = SevRequest {
            version: SEV_MESSAGE_VERSION,
            request: request.as_ptr().expose_provenance() as u64,
            response: response.as_mut_ptr().expose_provenance() as u64,
            firmware_error: 0,
            monitor_error: 0,
        };
        // SAFETY: both ioctls take a struct snp_guest_request_ioctl whose buffers have
        // the sizes checked above, and outlive the call.
        let done = unsafe {
            match command {
                SevGuest::Report => {
                    ioctl(&device, Updater::<REPORT, SevRequest>::new(&mut message))
                }
                SevGuest::DerivedKey => ioctl(
                    &device,
                    Updater::<DERIVED_KEY, SevRequest>::new(&mut message),
                ),
            }
        };
        done.map_err(|error| {
            io::Error::other(format!(
                "{error} (firmware error {:#x}, monitor error {:#x})",
                message.firmware_error, message.monitor_error
            ))
        })
    }

    fn tdx_report(&self, report_data: &[u8; 64]) -> io::Result<Vec<u8>> {
        const REPORT: Opcode = opcode::read_write::<TdxRequest>(b'T', 1);
        let device = self.device(TDX_GUEST)?;
        let mut request = TdxRequest {
            report_data: *report_data,
            report: [0; TDREPORT_BYTES],
        };
        // SAFETY: TDX_CMD_GET_REPORT0 takes a struct tdx_report_req and fills its second
        // part.
        unsafe { ioctl(&device, Updater::<REPORT, TdxRequest>::new(&mut request)) }?;
        Ok(request.report.to_vec())
    }
}

/// `struct nsm_iovec`.
#[repr(C)]
struct NsmBuffer {
    address: u64,
    bytes: u64,
}

impl NsmBuffer {
    fn over(start: *const u8, bytes: usize) -> Self {
        Self {
            address: start.expose_provenance() as u64,
            bytes: bytes as u64,
        }
    }
}

/// `struct nsm_raw`.
#[repr(C)]
struct NsmRaw {
    request: NsmBuffer,
    response: NsmBuffer,
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct SevRequest {
    version: u8,
    request: u64,
    response: u64,
    firmware_error: u32,
    monitor_error: u32,
}

/// `struct tdx_report_req`.
#[repr(C)]
struct TdxRequest {
    report_data: [u8; 64],
    report: [u8; TDREPORT_BYTES],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes_and_numbers() {
        assert_eq!(size_of::<NsmRaw>(), 32);
        assert_eq!(size_of::<SevRequest>(), 32);
        assert_eq!(size_of::<TdxRequest>(), 1088);
        // As the headers' macros give them on x86-64 and arm64.
        assert_eq!(opcode::read_write::<NsmRaw>(0x0a, 0), 0xc020_0a00);
        assert_eq!(opcode::read_write::<SevRequest>(b'S', 0), 0xc020_5300);
        assert_eq!(opcode::read_write::<SevRequest>(b'S', 1), 0xc020_5301);
        assert_eq!(opcode::read_write::<TdxRequest>(b'T', 1), 0xc440_5401);
    }

    #[test]
    fn files_are_read_whole_or_not_at_all_and_only_written_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Linux::new(folder.path());
        std::fs::write(folder.path().join("a"), [7; 100]).unwrap();
        assert!(kernel.exists("a") && !kernel.exists("b"));
        assert_eq!(kernel.read("a", 100).unwrap(), [7; 100]);
        assert_eq!(
            kernel.read("a", 99).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        kernel.write("a", b"xy").unwrap();
        assert_eq!(
            kernel.write("b", b"xy").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        kernel.create_folder("c").unwrap();
        assert!(kernel.create_folder("c").is_err());
        kernel.remove_folder("c").unwrap();
    }

    #[test]
    fn a_file_that_is_no_device_answers_no_ioctl() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dev")).unwrap();
        for device in [NSM, SEV_GUEST, TDX_GUEST] {
            std::fs::write(folder.path().join(device), b"").unwrap();
        }
        let kernel = Linux::new(folder.path());
        assert!(kernel.nsm(b"x").is_err());
        assert!(kernel.tdx_report(&[0; 64]).is_err());
        let command = SevGuest::DerivedKey;
        assert!(
            kernel
                .sev_guest(command, &[0; 32], &mut [0; 64])
                .unwrap_err()
                .to_string()
                .contains("firmware error 0x0")
        );
        assert!(kernel.sev_guest(command, &[0; 31], &mut [0; 64]).is_err());
    }
}
