//! No core dump of a process that holds keys.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Which mappings the kernel dumps: none (core(5), "Controlling which mappings are
/// written to the core dump"). Debuggers that make dumps follow it too.
const NO_MAPPINGS: &str = "0";
const FILTER: &str = "/proc/self/coredump_filter";

/// Neither the kernel nor a debugger of the same user gets at this process's memory;
/// a dump that root forces nevertheless holds no mapping. For good.
pub fn forbid_core_dumps() -> io::Result<()> {
    // First, while the file is still this process's own.
    std::fs::write(FILTER, NO_MAPPINGS)?;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
