//! The simulated measurement: SHA-384 of the running binary, which is what the
//! launch digest of a real TEE stands for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest;
use nautilus_attest_protocol::Measurement;

/// Linux's name for the file this process was started from; it leads there even
/// after the file was replaced or removed.
const RUNNING_BINARY: &str = "/proc/self/exe";
const READ_BUFFER_BYTES: usize = 1024 * 1024;

/// SHA-384 of the binary this process runs.
pub fn measure_running_binary() -> io::Result<Measurement> {
    measure_file(Path::new(RUNNING_BINARY))
}

/// SHA-384 of a file, read in pieces.
pub fn measure_file(path: &Path) -> io::Result<Measurement> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA384);
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
    }
    Measurement::new(context.finish().as_ref()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurement_is_the_sha_384_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("binary");
        std::fs::write(&path, b"abc").unwrap();
        // FIPS 180-4's example for SHA-384 of "abc".
        assert_eq!(
            measure_file(&path).unwrap().to_string(),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        );
    }

    #[test]
    fn the_running_binary_is_the_test_binary() {
        let path = std::env::current_exe().unwrap();
        assert_eq!(
            measure_running_binary().unwrap(),
            measure_file(&path).unwrap()
        );
    }
}
