//! Holders over a long time: as many refreshes as come together in most of a year, and refreshes that break off again and again.

use std::fs;

use volvelle_holder::quorum::Severity;

use crate::{Process, place, start, state_of, until_up};

fn files(state: &std::path::Path) -> Vec<String> {
    let names =
        fs::read_dir(state).expect("lists").flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".key") && name != "seal.key").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_refreshes_leave_one_fragment_and_every_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, _processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    for week in 1..=40 {
        let done = quorum.refresh().await.expect("refreshes");
        assert_eq!((done.keys, done.epoch, done.failed), (1, week, vec![]));
    }
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    assert!((0..3).all(|n| files(&state_of(&setup, n)).len() == 1), "older ones are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_that_break_off_again_and_again_do_not_stop_later_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    // The third one takes part in every round but can store nothing: where its state file is written first lies a folder.
    let realm = hex::encode(crate::REALM);
    let obstacle = state_of(&setup, 2).join(format!("{realm}-1.new"));
    fs::create_dir(&obstacle).expect("makes a folder");
    fs::set_permissions(&obstacle, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("sets the mode");
    for _ in 0..12 {
        let done = quorum.refresh().await.expect("tells");
        assert_eq!((done.keys, done.failed.len()), (0, 1));
    }
    assert!(files(&state_of(&setup, 0)).len() > 16, "each left something behind: {:?}", files(&state_of(&setup, 0)));
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    let findings = quorum.examine_all().await;
    assert!(findings.iter().any(|finding| finding.code == "two-epochs"), "{findings:?}");
    fs::remove_dir(&obstacle).expect("removes");
    processes[2] = None;
    processes[2] = Some(Process::start(&setup.holder_configs[2]));
    until_up(&quorum).await;
    let done = quorum.refresh().await.expect("refreshes");
    assert_eq!((done.keys, done.failed), (1, vec![]));
    assert!((0..3).all(|n| files(&state_of(&setup, n)).len() == 1), "one that succeeds erases them all");
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_has_no_backup_and_who_has_too_few_holders() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, _processes, quorum) = crate::start_of(folder.path(), 4, 3).await;
    let touch = |n: usize| fs::write(state_of(&setup, n).join("backup.made"), "").expect("writes");
    touch(0);
    let old = state_of(&setup, 1).join("backup.made");
    fs::write(&old, "").expect("writes");
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 24 * 3600);
    fs::File::options().write(true).open(&old).and_then(|file| file.set_modified(past)).expect("sets the time");
    let findings = quorum.examine_all().await;
    let of = |code: &str| findings.iter().filter(|f| f.code == code).map(|f| f.message.clone()).collect::<Vec<_>>();
    let backups = of("backup");
    assert_eq!(backups.len(), 3, "{backups:?}");
    assert!(backups[0].contains("holder 2 is from before") && backups[1].contains("of holder 3 no backup"));
    assert_eq!((of("threshold").len(), of("unsigned-roster").len(), of("one-host").len()), (1, 1, 1), "{findings:?}");
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
}
