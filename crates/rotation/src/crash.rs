//! Points at which a test may kill the process.

/// Ends the process without any clean-up at the call whose number `VOLVELLE_CRASH_AT` names. Builds without debug assertions
/// contain nothing of it.
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static AT: OnceLock<Option<u64>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let at = *AT.get_or_init(|| std::env::var("VOLVELLE_CRASH_AT").ok()?.parse().ok());
        if at.is_some_and(|at| PASSED.fetch_add(1, Ordering::SeqCst) + 1 == at) {
            tracing::error!(name, "crash point reached");
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
