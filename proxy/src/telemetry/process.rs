//! What the kernel says of this process.

/// Clock ticks a second in `/proc`: Linux' USER_HZ, the same on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time so far, or nothing where there is no `/proc`.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold blanks (proc(5)).
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Resident memory, or nothing where there is no `/proc`.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_kernel_tells() {
        assert!(super::cpu_seconds().is_some());
        assert!(super::resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
