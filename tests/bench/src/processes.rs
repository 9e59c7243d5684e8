//! What processes take: processor time and memory, from proc(5).

use std::time::Instant;

use anyhow::Context as _;

/// Clock ticks a second, the same on all of Linux's present architectures.
const TICKS_PER_S: f64 = 100.0;

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resident {
    /// All of it, mapped files included.
    pub whole_bytes: u64,
    /// Without mapped files.
    pub anonymous_bytes: u64,
}

/// Resident memory of all of `processes` together.
///
/// # Errors
/// When one is gone.
pub fn resident(processes: &[u32]) -> anyhow::Result<Resident> {
    let mut sum = Resident::default();
    for pid in processes {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid}"))?;
        sum.whole_bytes += kib(&status, "VmRSS:") * 1024;
        sum.anonymous_bytes += kib(&status, "RssAnon:") * 1024;
    }
    Ok(sum)
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Measures processor time of the servers and of the generator.
pub struct Meter {
    servers: Vec<u32>,
    began: Instant,
    servers_s: f64,
    generator_s: f64,
}

impl Meter {
    /// From now on.
    pub fn start(servers: &[u32]) -> Self {
        Self {
            servers: servers.to_vec(),
            began: Instant::now(),
            servers_s: servers.iter().map(|pid| processor_s(*pid)).sum(),
            generator_s: processor_s(std::process::id()),
        }
    }

    /// Processors taken since, and the servers' time for each of `rate` operations a second,
    /// for people.
    pub fn text(&self, rate: f64) -> String {
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let servers: f64 = self.servers.iter().map(|pid| processor_s(*pid)).sum();
        let generator = processor_s(std::process::id());
        let servers = (servers - self.servers_s) / elapsed_s;
        let generator = (generator - self.generator_s) / elapsed_s;
        format!(
            "(processors: servers {servers:.2}, {:.1} us each, generator {generator:.2})",
            servers / rate * 1e6
        )
    }
}

/// User and system time of a process in seconds; zero when it is gone.
fn processor_s(pid: u32) -> f64 {
    let ticks = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            // The name may hold blanks; the fields after it do not. utime and stime are
            // the fields 14 and 15, counted from one.
            let (_, rest) = stat.rsplit_once(')')?;
            let mut fields = rest.split_whitespace().skip(11);
            let user: u32 = fields.next()?.parse().ok()?;
            let system: u32 = fields.next()?.parse().ok()?;
            Some(f64::from(user) + f64::from(system))
        });
    ticks.unwrap_or(0.0) / TICKS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_resident_and_takes_time() {
        let own = std::process::id();
        let resident = resident(&[own]).expect("it runs");
        assert!(resident.whole_bytes > resident.anonymous_bytes);
        assert!(resident.anonymous_bytes > 0);
        let began = Instant::now();
        let mut number = 1_u64;
        while processor_s(own) == 0.0 && began.elapsed().as_secs() < 60 {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(processor_s(own) > 0.0);
    }
}
