//! Signed rosters: nobody alone changes who takes part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use volvelle_holder::local::{LocalSetup, change_signed, prepare, prepare_signed};
use volvelle_holder::roster::{Policy, write_durably};
use volvelle_holder::setup::administrator::init_administrator;
use volvelle_holder::setup::{RosterChange, changed_roster, init_gateway};
use volvelle_holder::trust::{Trust, accept, believed, sign};
use volvelle_holder::{Quorum, Roster};

use crate::program::refusal;
use crate::{Process, REALM, place, until_up};

fn admin(root: &Path, index: u8) -> PathBuf {
    root.join(format!("administrator-{index}"))
}

/// A change of the roster in use, signed by these, one after the other.
fn signed_by(root: &Path, change: RosterChange, administrators: &[&Path]) -> String {
    let mut text = changed_roster(Roster::load(&root.join("roster.toml")).expect("a roster"), change).expect("changes");
    for dir in administrators {
        text = sign(Roster::parse(&text).expect("a roster"), dir).expect("signs");
    }
    text
}

fn with_gateway(pin: &str) -> RosterChange {
    RosterChange { gateways: vec![pin.to_owned()], ..RosterChange::default() }
}

fn start(setup: &LocalSetup) -> Vec<Process> {
    setup.holder_configs.iter().map(|config| Process::start(config)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_heard_when_the_roster_with_it_is_signed_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let setup = prepare_signed(root, 3, 2).expect("prepares");
    let processes = start(&setup);
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    quorum.create_key(REALM, 1).await.expect("makes a key");
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");

    // A second gateway, whose own machine believes whatever it is told.
    let home = root.join("second");
    let pin = init_gateway(&home).expect("an identity");
    let mut config = setup.quorum.clone();
    config.identity.certificate = home.join("certificate.der");
    config.identity.key = home.join("key.der");
    let second = Quorum::new(&config).expect("a quorum");
    assert!(second.open(&place("/a"), &record).await.is_err(), "nobody knows it");

    // One administrator alone: neither the command nor the holder takes his roster.
    let alone = signed_by(root, with_gateway(&pin), &[&admin(root, 1)]);
    let refused = accept(root, &alone, Trust::First).expect_err("one of two").to_string();
    assert!(refused.starts_with("1 of the administrators of roster number 1"), "{refused}");
    drop(processes);
    let before = fs::read_to_string(root.join("roster.toml")).expect("reads");
    write_durably(&root.join("roster.toml"), alone.as_bytes(), false).expect("writes");
    assert!(refusal(&setup.holder_configs[0]).contains("is not the roster that was accepted here, number 1"));
    write_durably(&root.join("roster.toml"), before.as_bytes(), false).expect("writes");

    let roster = change_signed(root, with_gateway(&pin)).expect("all sign");
    assert_eq!((roster.serial, roster.signatures.len()), (2, 3));
    let _processes = start(&setup);
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    assert_eq!(second.open(&place("/a"), &record).await.expect("heard now").as_slice(), b"v");
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 1);
    let findings = quorum.examine_all().await;
    assert!(!findings.iter().any(|finding| finding.code.contains("roster") || finding.code == "one-administrator"));
}

#[test]
fn only_enough_administrators_of_the_roster_in_use_make_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    prepare_signed(root, 5, 3).expect("prepares");
    let [one, two, three, stranger] = [admin(root, 1), admin(root, 2), admin(root, 3), root.join("stranger")];
    let own = init_administrator(&stranger).expect("a key");
    let pin = "ab".repeat(32);
    let try_it = |text: &str| accept(root, text, Trust::First).map(|roster| roster.serial).map_err(|e| e.to_string());
    let sign_by = |administrators: &[&Path]| signed_by(root, with_gateway(&pin), administrators);

    assert!(try_it(&sign_by(&[])).is_err_and(|why| why.starts_with("0 of")));
    assert!(try_it(&sign_by(&[&one, &two])).is_err_and(|why| why.starts_with("2 of")));
    assert!(
        try_it(&sign_by(&[&one, &two, &stranger])).is_err_and(|why| why.starts_with("2 of")),
        "not an administrator"
    );
    let mut twice = Roster::parse(&sign_by(&[&one, &two])).expect("a roster");
    let again = twice.signatures[0].clone();
    twice.signatures.push(again);
    assert!(
        try_it(&toml::to_string(&twice).expect("text")).is_err_and(|why| why.starts_with("2 of")),
        "once counts once"
    );

    // Who names himself in the new roster is none in the one in use.
    let names_himself =
        RosterChange { administrators: (1..=5).map(|n| (n, own.clone())).take(3).collect(), ..with_gateway(&pin) };
    let refused = try_it(&signed_by(root, names_himself, &[&stranger, &one, &two]));
    assert!(refused.is_err(), "{refused:?}");

    // Something else than what was signed.
    let signed = sign_by(&[&one, &two, &three]);
    let changed = signed.replace(&pin, &"cd".repeat(32));
    assert!(try_it(&changed).is_err_and(|why| why.starts_with("0 of")));
    let more = Policy {
        gateway: pin.clone(),
        prefixes: vec!["/".into()],
        operations: vec!["open".into()],
        per_minute: None,
        per_hour: None,
        per_day: None,
        buried_per_day: None,
    };
    let mut widened = Roster::parse(&signed).expect("a roster");
    widened.policies.push(more);
    assert!(try_it(&toml::to_string(&widened).expect("text")).is_err_and(|why| why.starts_with("0 of")));

    let first = fs::read_to_string(root.join("roster.toml")).expect("reads");
    assert_eq!(try_it(&signed), Ok(2));
    assert_eq!(try_it(&signed), Ok(2), "a second time changes nothing");
    assert!(try_it(&first).is_err_and(|why| why.contains("is not newer")), "an older one is replayed");
    // Another one with the same number, signed while the first was on its way.
    let mut other = Roster::parse(&first).expect("a roster");
    other.gateways.push("ef".repeat(32));
    other.serial = 2;
    let mut text = toml::to_string(&other).expect("text");
    for dir in [&one, &two, &three] {
        text = sign(Roster::parse(&text).expect("a roster"), dir).expect("signs");
    }
    assert!(try_it(&text).is_err_and(|why| why.contains("is not newer")));
    assert_eq!(believed(&root.join("roster.toml")).expect("as accepted").gateways.len(), 2);
}

#[test]
fn an_unsigned_set_up_starts_as_before_and_gets_administrators_by_explicit_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let setup = prepare(root, 3, 2).expect("prepares");
    let unsigned = fs::read_to_string(&setup.quorum.roster).expect("reads");
    assert!(believed(&setup.quorum.roster).is_ok(), "as before");
    let administrators = (1..=3).map(|n| (n, init_administrator(&admin(root, n)).expect("a key"))).collect::<Vec<_>>();
    let change = RosterChange { administrators, ..RosterChange::default() };
    let text = signed_by(root, change, &[&admin(root, 1), &admin(root, 2)]);
    // It is neither believed because it lies there, nor accepted without being told so.
    write_durably(&setup.quorum.roster, text.as_bytes(), false).expect("writes");
    assert!(refusal(&setup.holder_configs[0]).contains("accept-roster --first"));
    assert!(accept(root, &text, Trust::Successor).expect_err("not told so").to_string().contains("--first"));
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volvelle-holder"));
        command.args(arguments).output().expect("runs")
    };
    let (dir, file) = (root.display().to_string(), setup.quorum.roster.display().to_string());
    let shown = run(&["show-roster", "--roster", &file]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("2 of 3 holders are needed") && shown.matches("signed by").count() == 2, "{shown}");
    let accepted = run(&["accept-roster", "--dir", &dir, "--roster", &file, "--first"]);
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(believed(&setup.quorum.roster).expect("believed").serial, 1);
    // There is no way back to an unsigned one.
    assert!(accept(root, &unsigned, Trust::First).is_err());
    write_durably(&setup.quorum.roster, unsigned.as_bytes(), false).expect("writes");
    assert!(refusal(&setup.holder_configs[1]).contains("is not the roster that was accepted"));
}

#[test]
fn a_roster_that_could_never_be_changed_again_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let setup = prepare(root, 3, 2).expect("prepares");
    let roster = || Roster::load(&setup.quorum.roster).expect("a roster");
    let key = init_administrator(&admin(root, 1)).expect("a key");
    let change = |administrators| changed_roster(roster(), RosterChange { administrators, ..RosterChange::default() });
    let everybody = change((1..=3).map(|n| (n, key.clone())).collect()).expect_err("one administrator for all");
    assert!(everybody.to_string().contains("1 different administrators"), "{everybody}");
    let some = change(vec![(1, key.clone())]).expect_err("two have none");
    assert!(some.to_string().contains("every holder"), "{some}");
    assert!(change(vec![(4, key)]).is_err() && change(vec![(1, "x".into())]).is_err());
    // A roster for another holder is not taken into this one's folder.
    let other = tempfile::tempdir().expect("a folder");
    prepare_signed(other.path(), 3, 2).expect("prepares");
    let foreign = fs::read_to_string(other.path().join("roster.toml")).expect("reads");
    let home = setup.holder_configs[0].parent().expect("a folder");
    let refused = accept(home, &foreign, Trust::First).expect_err("another installation").to_string();
    assert!(refused.contains("another holder 1"), "{refused}");
}
