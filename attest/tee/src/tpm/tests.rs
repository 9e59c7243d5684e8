//! Against Debian's `swtpm`, a TPM 2.0 in software, with a bus in between that can be
//! listened to and tampered with.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nautilus_attest_protocol::binding::key_release_report_data;
use nautilus_attest_protocol::{
    Counter as _, CounterError, Evidence, KEY_RELEASE_PURPOSE, KeyRelease as _, KeyReleaseError,
    ReleaseRequest, TeeKind,
};
use nautilus_attest_secret::EphemeralKey;

use super::*;

/// A TPM in software, off when dropped.
struct Swtpm {
    process: Child,
    state: Arc<tempfile::TempDir>,
}

impl Swtpm {
    fn start(state: Arc<tempfile::TempDir>) -> Self {
        let socket = state.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm, which .ci/setup installs");
        let mut swtpm = Self { process, state };
        while !socket.exists() {
            assert!(swtpm.process.try_wait().unwrap().is_none(), "swtpm ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        swtpm
    }

    fn new() -> Self {
        Self::start(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// The socket's file is there a little before anybody listens on it.
    fn tpm(&self) -> Tpm {
        loop {
            match Tpm::open(&self.state.path().join("socket")) {
                Err(TpmError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    fn restarted(self) -> Self {
        let state = Arc::clone(&self.state);
        drop(self);
        Self::start(state)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A bus that hears everything and alters answers when told to.
struct Bus {
    inner: UnixStream,
    heard: Arc<Mutex<Vec<u8>>>,
    tampers: Arc<AtomicBool>,
}

impl Read for Bus {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.heard.lock().unwrap().extend(&buffer[..count]);
        let has_session = buffer[..2] == [0x80, 0x02];
        // The authorization's last byte is the HMAC's; before it, the parameters.
        if self.tampers.load(Ordering::SeqCst) && has_session && count > 80 {
            buffer[20] ^= 1;
        }
        Ok(count)
    }
}

impl Write for Bus {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.heard.lock().unwrap().extend(buffer);
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Tapped {
    tpm: Tpm,
    heard: Arc<Mutex<Vec<u8>>>,
    tampers: Arc<AtomicBool>,
}

fn tapped(swtpm: &Swtpm) -> Tapped {
    let path = swtpm.state.path().join("socket");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tampers = Arc::new(AtomicBool::new(false));
    let bus = Bus {
        inner: UnixStream::connect(&path).unwrap(),
        heard: Arc::clone(&heard),
        tampers: Arc::clone(&tampers),
    };
    let tpm = Tpm {
        path,
        connection: Mutex::new(Connection(Box::new(bus))),
    };
    Tapped {
        tpm,
        heard,
        tampers,
    }
}

/// Asks as a TDX node does, and opens the answer.
struct Asker {
    key: EphemeralKey,
    evidence: Evidence,
}

impl Asker {
    fn new() -> Self {
        let key = EphemeralKey::generate().unwrap();
        let data = key_release_report_data(key.public_key(), "keys");
        let evidence = Evidence::new(TeeKind::Tdx, data.to_vec());
        Self { key, evidence }
    }

    fn request(&self) -> ReleaseRequest<'_> {
        ReleaseRequest {
            evidence: &self.evidence,
            public_key: self.key.public_key(),
            label: "keys",
        }
    }

    fn opened(&self, envelope: &[u8]) -> Vec<u8> {
        let key = self.key.open(KEY_RELEASE_PURPOSE, envelope).unwrap();
        assert_eq!(key.len(), 32);
        key.to_vec()
    }
}

fn release(tpm: Tpm) -> TpmRelease {
    let registers = PcrSelection::new(DEFAULT_PCRS).unwrap();
    TpmRelease::new(Arc::new(tpm), registers)
}

/// Extends a register, as another boot chain would have: TPM2_PCR_Extend.
fn extend(tpm: &Tpm, register: u8) {
    const PCR_EXTEND: u32 = 0x182;
    let password = Body::new().u32(0x4000_0009).sized(&[]).u8(1).sized(&[]);
    let password = password.into_bytes();
    let digests = Body::new().u32(1).u16(SHA256).raw(&[7; 32]).into_bytes();
    let length = 10 + 4 + 4 + password.len() + digests.len();
    let message = Body::new()
        .u16(0x8002)
        .u32(u32::try_from(length).unwrap())
        .u32(PCR_EXTEND)
        .u32(u32::from(register))
        .u32(u32::try_from(password.len()).unwrap())
        .raw(&password)
        .raw(&digests);
    let mut connection = tpm.lock();
    connection.0.write_all(&message.into_bytes()).unwrap();
    let mut answer = [0; 64];
    let count = connection.0.read(&mut answer).unwrap();
    assert!(count >= 10 && answer[6..10] == [0; 4], "{answer:x?}");
}

#[test]
fn a_key_comes_back_after_a_restart_of_the_machine() {
    let swtpm = Swtpm::new();
    let asker = Asker::new();
    let made = release(swtpm.tpm()).generate(&asker.request()).unwrap();
    let key = asker.opened(&made.envelope);
    assert_ne!(key, [0; 32]);

    let swtpm = swtpm.restarted();
    let again = Asker::new();
    let envelope = release(swtpm.tpm())
        .release(&made.kept, &again.request())
        .unwrap();
    assert_eq!(again.opened(&envelope), key);
}

#[test]
fn another_boot_chain_gets_no_key() {
    let swtpm = Swtpm::new();
    let release = release(swtpm.tpm());
    let asker = Asker::new();
    let made = release.generate(&asker.request()).unwrap();
    // A register that is not chosen may change.
    extend(&release.tpm, 8);
    release.release(&made.kept, &asker.request()).unwrap();
    extend(&release.tpm, 11);
    let error = release.release(&made.kept, &asker.request()).unwrap_err();
    let KeyReleaseError::Refused { reason, .. } = error else {
        panic!("{error}")
    };
    assert!(reason.contains("registers 0,2,4,7,11"), "{reason}");
    // Nothing was left loaded: it has room for three.
    for _ in 0..5 {
        assert!(release.release(&made.kept, &asker.request()).is_err());
    }
    release.generate(&asker.request()).unwrap();
}

#[test]
fn another_tpm_gives_no_key() {
    let (first, second) = (Swtpm::new(), Swtpm::new());
    let asker = Asker::new();
    let made = release(first.tpm()).generate(&asker.request()).unwrap();
    let error = release(second.tpm())
        .release(&made.kept, &asker.request())
        .unwrap_err();
    assert!(error.to_string().contains("another TPM"), "{error}");
}

#[test]
fn what_was_kept_is_refused_when_it_was_altered() {
    let swtpm = Swtpm::new();
    let release = release(swtpm.tpm());
    let asker = Asker::new();
    let made = release.generate(&asker.request()).unwrap();
    for at in (0..made.kept.len()).step_by(5) {
        let mut altered = made.kept.clone();
        altered[at] ^= 1;
        assert!(
            release.release(&altered, &asker.request()).is_err(),
            "byte {at} of {}",
            made.kept.len()
        );
    }
    assert!(release.release(&made.kept[..40], &asker.request()).is_err());
}

#[test]
fn the_key_never_crosses_the_bus_in_clear() {
    let swtpm = Swtpm::new();
    let Tapped { tpm, heard, .. } = tapped(&swtpm);
    let release = release(tpm);
    let asker = Asker::new();
    let made = release.generate(&asker.request()).unwrap();
    let envelope = release.release(&made.kept, &asker.request()).unwrap();
    let key = asker.opened(&envelope);
    let heard = heard.lock().unwrap();
    // The private part is known to have crossed: what was heard is what was said.
    assert!(
        heard
            .windows(40)
            .any(|window| window == &made.kept[60..100])
    );
    assert!(!heard.windows(16).any(|window| window == &key[..16]));
}

#[test]
fn an_answer_altered_on_the_bus_is_not_used() {
    let swtpm = Swtpm::new();
    let Tapped { tpm, tampers, .. } = tapped(&swtpm);
    let release = release(tpm);
    let asker = Asker::new();
    let made = release.generate(&asker.request()).unwrap();
    tampers.store(true, Ordering::SeqCst);
    assert!(release.release(&made.kept, &asker.request()).is_err());
    assert!(release.generate(&asker.request()).is_err());
    tampers.store(false, Ordering::SeqCst);
    release.release(&made.kept, &asker.request()).unwrap();
}

#[test]
fn a_counter_only_rises_and_survives_a_restart() {
    let swtpm = Swtpm::new();
    let counter = TpmCounter::open(Arc::new(swtpm.tpm())).unwrap();
    let first = counter.read().unwrap();
    assert_eq!(counter.read().unwrap(), first);
    let second = counter.increment().unwrap();
    assert!(second > first);
    drop(counter);
    let swtpm = swtpm.restarted();
    let counter = TpmCounter::open(Arc::new(swtpm.tpm())).unwrap();
    assert_eq!(counter.read().unwrap(), second);
    assert!(counter.increment().unwrap() > second);
}

#[test]
fn a_counter_that_was_removed_comes_back_above_where_it_was() {
    const NV_UNDEFINE_SPACE: u32 = 0x122;
    let swtpm = Swtpm::new();
    let tpm = Arc::new(swtpm.tpm());
    let counter = TpmCounter::open(Arc::clone(&tpm)).unwrap();
    let mut last = 0;
    for _ in 0..5 {
        last = counter.increment().unwrap();
    }
    let password = Body::new().u32(0x4000_0009).sized(&[]).u8(1).sized(&[]);
    let password = password.into_bytes();
    let message = Body::new()
        .u16(0x8002)
        .u32(u32::try_from(10 + 8 + 4 + password.len()).unwrap())
        .u32(NV_UNDEFINE_SPACE)
        .u32(OWNER)
        .u32(0x0180_6e61)
        .u32(u32::try_from(password.len()).unwrap())
        .raw(&password);
    {
        let mut connection = tpm.lock();
        connection.0.write_all(&message.into_bytes()).unwrap();
        let mut answer = [0; 64];
        let count = connection.0.read(&mut answer).unwrap();
        assert!(count >= 10 && answer[6..10] == [0; 4], "{answer:x?}");
    }
    let gone = counter.read().unwrap_err();
    assert!(matches!(gone, CounterError::Unavailable { .. }), "{gone}");
    let again = TpmCounter::open(tpm).unwrap();
    assert!(again.read().unwrap() > last);
}

#[test]
fn a_counter_set_back_behind_our_back_is_named() {
    let (first, second) = (Swtpm::new(), Swtpm::new());
    let counter = TpmCounter::open(Arc::new(first.tpm())).unwrap();
    for _ in 0..3 {
        counter.increment().unwrap();
    }
    // The host puts another TPM in its place, with a counter of the same index.
    TpmCounter::open(Arc::new(second.tpm())).unwrap();
    let path = second.state.path().join("socket");
    *counter.tpm.lock() = Connection(Box::new(UnixStream::connect(path).unwrap()));
    let error = counter.read().unwrap_err();
    assert!(matches!(error, CounterError::Replaced { .. }), "{error}");
}

#[test]
fn what_is_no_tpm_is_not_taken_for_one_that_was_replaced() {
    let no_tpm = Tpm::open(Path::new("/dev/null")).unwrap();
    let Err(error) = TpmCounter::open(Arc::new(no_tpm)) else {
        panic!("a counter out of nothing")
    };
    assert!(matches!(error, CounterError::Unavailable { .. }), "{error}");
}

#[test]
fn an_index_that_holds_something_else_is_named() {
    let swtpm = Swtpm::new();
    let tpm = Arc::new(swtpm.tpm());
    // An ordinary index of 8 bytes in the counter's place: OWNERWRITE, AUTHREAD, NO_DA.
    let public = Body::new()
        .u32(0x0180_6e61)
        .u16(SHA256)
        .u32(1 << 1 | 1 << 18 | 1 << 25)
        .sized(&[])
        .u16(8)
        .into_bytes();
    let parameters = Body::new().sized(&[]).sized(&public).into_bytes();
    tpm.lock()
        .with_empty_password(Code::NvDefineSpace, &[OWNER], &parameters)
        .unwrap();
    let Err(error) = TpmCounter::open(tpm) else {
        panic!("another index was taken for the counter")
    };
    assert!(matches!(error, CounterError::Replaced { .. }), "{error}");
}

#[test]
fn registers_are_numbers_and_some() {
    let selection: PcrSelection = "0, 7,11".parse().unwrap();
    assert_eq!(selection.to_string(), "0,7,11");
    assert_eq!(PcrSelection::decode(&selection.encode()), Some(selection));
    assert!("7,24".parse::<PcrSelection>().is_err());
    assert!("seven".parse::<PcrSelection>().is_err());
    assert_eq!("".parse::<PcrSelection>(), Err(PcrSelectionError::Empty));
}
