//! Holders that say no, and the log that proves what each was asked.

use std::fs;
use std::process::Command;

use volvelle_holder::log::{self, Entry};
use volvelle_holder::roster::Policy;
use volvelle_holder::{Quorum, QuorumError, Roster};

use crate::{Process, place, start, state_of, until_up};

fn entries(state: &std::path::Path) -> Vec<Entry> {
    let mut all = Vec::new();
    log::read(&state.join("log"), |entry| all.push(entry)).expect("whole");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_what_its_policy_allows_and_the_log_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/other/a"), b"v").await.expect("seals without a policy");
    drop((processes, quorum));
    let mut roster = Roster::load(&setup.quorum.roster).expect("a roster");
    roster.policies.push(Policy {
        gateway: roster.gateways[0].clone(),
        prefixes: vec!["/prod".into()],
        operations: vec!["seal".into(), "open".into()],
        per_minute: Some(5),
        per_hour: None,
        per_day: None,
        buried_per_day: None,
    });
    fs::write(&setup.quorum.roster, toml::to_string(&roster).expect("text")).expect("writes");
    let _processes: Vec<Process> = setup.holder_configs.iter().map(|config| Process::start(config)).collect();
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    let says = |error: QuorumError, why: &str| {
        assert!(matches!(error, QuorumError::Refused { .. }) && error.to_string().contains(why), "{error}");
    };
    says(quorum.open(&place("/other/a"), &record).await.expect_err("another path"), "its policy forbids it");
    says(quorum.seal(&place("/products/a"), b"v").await.expect_err("not under it"), "its policy forbids it");
    let version = |n: u32| volvelle_fragments::Place { version: n, ..place("/prod/a") };
    let sealed = quorum.seal(&version(1), b"v").await.expect("seals");
    let moved = quorum.rewrap(&version(1), &version(1), &sealed).await.expect_err("an operation it may not do");
    says(moved, "its policy forbids it");
    let mut given = 0;
    let refused = loop {
        match quorum.seal(&version(100 + given), b"v").await {
            Ok(_) => given += 1,
            Err(error) => break error,
        }
        assert!(given < 30, "there is a budget");
    };
    says(refused, "its budget is used up");
    // Each of three holders has a budget of five, two are asked for each item, and one is used up.
    assert!((4..=6).contains(&given), "{given}");
    quorum.open(&version(1), &sealed).await.expect("an item that was counted already opens");

    let all: Vec<Entry> = (0..3).flat_map(|n| entries(&state_of(&setup, n))).collect();
    let count = |operation: &str, path: &str, status: &str| {
        let inputs = all.iter().filter(|entry| entry.operation == operation).flat_map(|entry| &entry.inputs);
        inputs.filter(|line| line.path == path && line.status == status).count()
    };
    assert!(all.iter().all(|entry| entry.gateway == roster.gateways[0]));
    // Two are asked; a third one too when one of them is slow.
    let asked = 2..=3;
    assert!(asked.contains(&count("seal", "/other/a", "evaluated")), "before there was a policy");
    assert_eq!(count("open", "/other/a", "denied"), 3);
    assert_eq!(count("rewrap", "/prod/a", "denied"), 6, "the old place and the new one");
    assert!(asked.contains(&count("open", "/prod/a", "evaluated")));
    assert!(count("seal", "/prod/a", "rate") >= 2);
    // The same request has the same name everywhere.
    let seal = all.iter().find(|entry| entry.operation == "seal").expect("one");
    assert!(asked.contains(&all.iter().filter(|entry| entry.request == seal.request).count()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_changed_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, quorum) = start(folder.path()).await;
    for _ in 0..4 {
        quorum.seal(&place("/a"), b"v").await.expect("seals");
    }
    drop(processes);
    let asked_most = (0..3).max_by_key(|n| entries(&state_of(&setup, *n)).len()).expect("three");
    let dir = state_of(&setup, asked_most).join("log");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volvelle-holder"));
        let output = command.arg("check-log").arg("--dir").arg(&dir).output().expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (whole, said) = check();
    assert!(whole && said.contains(" entries, the last one is "), "{said}");
    let file = fs::read_dir(&dir).expect("lists").flatten().next().expect("a file").path();
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replacen("\"at\":1", "\"at\":2", 1)).expect("writes");
    assert!(!check().0, "a changed entry breaks the chain");
}
