//! A holder killed at each of its writes during a refresh and a repair: every `fsync`, `rename` and `unlink` in turn, on the real
//! program, by strace, which kills it as it enters the system call.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use volvelle_holder::Quorum;
use volvelle_holder::local::LocalSetup;

use crate::renewal::file_keys;
use crate::{Process, place, start, state_of, until_up};

/// More writes than a refresh has.
const MOST: u32 = 40;

/// A holder that is killed as its one worker enters this system call for the nth time.
fn traced(config: &Path, call: &str, nth: u32) -> Process {
    let child = Command::new("strace")
        .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
        .args([env!("CARGO_BIN_EXE_volvelle-holder"), "--config"])
        .arg(config)
        .env("TOKIO_WORKER_THREADS", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace starts");
    Process(child)
}

/// Whether it was killed; waits until it is or answers.
async fn until_answering(process: &mut Process, quorum: &Quorum, n: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while process.0.try_wait().expect("waits").is_none() && quorum.status().await[n].round_trip.is_none() {
        assert!(Instant::now() < until, "it comes up or is killed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn sweep(
    (setup, quorum, record): (&LocalSetup, &Quorum, &[u8]),
    processes: &mut [Option<Process>],
    call: &str,
    is_repair: bool,
) -> u32 {
    for nth in 1..=MOST {
        processes[0] = None;
        if is_repair {
            fs::remove_dir_all(state_of(setup, 0)).expect("removes");
        }
        let mut process = traced(&setup.holder_configs[0], call, nth);
        until_answering(&mut process, quorum, 0).await;
        // Fails if the holder is killed.
        if is_repair {
            quorum.repair(1).await.ok();
        } else {
            quorum.refresh().await.ok();
        }
        let killed = process.0.try_wait().expect("waits").is_some();
        drop(process);
        assert_eq!(quorum.open(&place("/a"), record).await.expect("the others open").as_slice(), b"v");
        processes[0] = Some(Process::start(&setup.holder_configs[0]));
        let until = Instant::now() + Duration::from_secs(20);
        while quorum.status().await[0].round_trip.is_none() {
            assert!(Instant::now() < until, "it starts again after {call} {nth}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let repaired = quorum.repair(1).await.expect("repairs what is to be repaired");
        assert!(repaired.failed.is_empty() && (is_repair || repaired.restored == 0), "{call} {nth}: {repaired:?}");
        let done = quorum.refresh().await.expect("refreshes");
        assert!(done.failed.is_empty(), "{call} {nth}: {done:?}");
        processes[1] = None;
        assert_eq!(quorum.open(&place("/a"), record).await.expect("it opens").as_slice(), b"v");
        processes[1] = Some(Process::start(&setup.holder_configs[1]));
        until_up(quorum).await;
        assert_eq!(file_keys(&state_of(setup, 0)).len(), 1, "{call} {nth}: nothing is left behind");
        if !killed {
            return nth - 1;
        }
    }
    panic!("there are more than {MOST} calls of {call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_killed_at_any_write_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    for (what, is_repair) in [("refresh", false), ("repair", true)] {
        let mut points = Vec::new();
        for call in ["fsync", "rename", "unlink"] {
            let killed = sweep((&setup, &quorum, &record), &mut processes, call, is_repair).await;
            assert!(killed > 1, "{call} was met");
            points.push(format!("{killed} × {call}"));
        }
        writeln!(std::io::stderr(), "killed during a {what} at {}: nothing lost", points.join(", ")).ok();
    }
}
