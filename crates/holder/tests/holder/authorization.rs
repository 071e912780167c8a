//! Holders that believe only clients: without a valid statement nothing is evaluated.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use volvelle_fragments::Place;
use volvelle_holder::asker::{Asker, Identity};
use volvelle_holder::authorization::{Signer, forwarded, make_key};
use volvelle_holder::local::LocalSetup;
use volvelle_holder::log::{self, Entry};
use volvelle_holder::{Quorum, QuorumError, Refusal};

use crate::{Process, REALM, place, start, state_of, until_up};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn signer(folder: &Path, name: &str, certificate: &Path) -> (Signer, String) {
    let key = folder.join(name);
    let public = make_key(&key).expect("a key");
    (Signer::load(&key, certificate, &[]).expect("loads"), public)
}

/// Starts the holders anew with this in their configurations.
async fn restart(setup: &LocalSetup, processes: &mut Vec<Option<Process>>, section: &str) -> Quorum {
    processes.clear();
    for config in &setup.holder_configs {
        let text = fs::read_to_string(config).expect("reads");
        let before = text.split("[authorization]").next().expect("something").to_owned();
        fs::write(config, format!("{before}\n[authorization]\n{section}\n")).expect("writes");
    }
    processes.extend(setup.holder_configs.iter().map(|config| Some(Process::start(config))));
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    quorum
}

/// Opens a record as somebody; gives why not.
async fn open_as(quorum: &Quorum, principal: &str, statement: &[u8], place: &Place, record: &[u8]) -> Option<String> {
    let identity = Identity { principal: principal.to_owned(), authorization: statement.to_vec() };
    let asker = Asker::known([1; 8], Arc::new(identity));
    match asker.scope(quorum.open(place, record)).await {
        Ok(_) => None,
        Err(error @ QuorumError::Refused { why: Refusal::Authorization, .. }) => Some(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_believes_only_statements_of_live_clients_of_this_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/prod/a"), b"v").await.expect("seals");
    let own = setup.quorum.identity.certificate.clone();
    let (signer_, public) = signer(folder.path(), "authorization.der", &own);
    let quorum = restart(&setup, &mut processes, &format!("mode = \"require\"\nsigning-keys = [\"{public}\"]")).await;

    let live = (now(), now() + 600);
    let statement = signer_.sign(REALM, "p-1", live).expect("signs");
    let (at, record) = (place("/prod/a"), record.as_slice());
    assert_eq!(open_as(&quorum, "p-1", &statement, &at, record).await, None);
    assert_eq!(open_as(&quorum, "p-1", &statement, &at, record).await, None, "a known one too");

    let elsewhere = setup.holder_configs[0].with_file_name("certificate.der");
    let other_gateway = Signer::load(&folder.path().join("authorization.der"), &elsewhere, &[]).expect("loads");
    let (forger, _) = signer(folder.path(), "forged.der", &own);
    let mut changed = statement.clone();
    changed[20] ^= 1;
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("p-1", vec![], "no client's authorization came with it"),
        ("volvelle", vec![], "nothing may be done here for no client"),
        ("p-1", signer_.sign(REALM, "p-1", (now() - 900, now() - 60)).expect("signs"), "has expired"),
        ("p-1", signer_.sign(REALM, "p-1", (now() + 900, now() + 1800)).expect("signs"), "is not yet valid"),
        ("p-1", signer_.sign([8; 16], "p-1", live).expect("signs"), "is for another account"),
        ("p-1", other_gateway.sign(REALM, "p-1", live).expect("signs"), "is for another gateway"),
        ("p-1", forger.sign(REALM, "p-1", live).expect("signs"), "its signature is of no key that this holder trusts"),
        ("p-1", changed, "its signature is of no key that this holder trusts"),
    ];
    for (principal, statement, why) in cases {
        let said = open_as(&quorum, principal, &statement, &at, record).await.expect("refused");
        for holder in 1..=3 {
            assert!(said.contains(&format!("holder {holder}: ")), "{said}");
        }
        assert!(said.contains(why), "{said} has {why}");
    }
    let garbage = open_as(&quorum, "p-1", b"\x02a token", &at, record).await.expect("refused");
    assert!(garbage.contains("its form is not known here"), "{garbage}");
    assert!(quorum.status().await.iter().all(|holder| holder.state == "up"), "nobody is blamed for saying no");

    let mut all: Vec<Entry> = Vec::new();
    log::read(&state_of(&setup, 0).join("log"), |entry| all.push(entry)).expect("whole");
    let found = |text: &str, status: &str| {
        all.iter().any(|entry| entry.authorization == text && entry.inputs.iter().any(|line| line.status == status))
    };
    assert!(found("not shown: no client's authorization came with it", "unauthorized"));
    let clients = (0..3).filter(|n| {
        let mut any = false;
        log::read(&state_of(&setup, *n).join("log"), |entry| any |= entry.authorization == "client p-1")
            .expect("whole");
        any
    });
    assert!(clients.count() >= 2, "whoever answered says for whom");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_for_no_client_has_its_paths_and_its_budget() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let mut sealed = Vec::new();
    for (n, path) in (1..).zip(["/prod/a", "/prod/b", "/prod/c", "/prod/d", "/other"]) {
        let place = Place { version: n, ..place(path) };
        let record = quorum.seal(&place, b"v").await.expect("seals");
        sealed.push((place, record));
    }
    let section = "mode = \"require\"\n[authorization.rotation]\nprefixes = [\"/prod\"]\nper-hour = 1";
    let quorum = restart(&setup, &mut processes, section).await;
    let own = Arc::new(Identity { principal: "volvelle".into(), authorization: Vec::new() });
    let open = async |n: usize| {
        let (place, record): &(Place, Vec<u8>) = &sealed[n];
        Asker::known([1; 8], Arc::clone(&own)).scope(quorum.open(place, record)).await
    };
    open(0).await.expect("within paths and budget");
    let outside = open(4).await.expect_err("another path");
    assert!(matches!(outside, QuorumError::Refused { why: Refusal::Policy, .. }), "{outside}");
    open(0).await.expect("the same one is counted once");
    // Three holders with a budget of one, two of which are needed: three more items are too many for any two.
    let mut refused = None;
    for n in 1..4 {
        refused = refused.or(open(n).await.err());
    }
    assert!(matches!(refused, Some(QuorumError::Refused { why: Refusal::Budget, .. })), "{refused:?}");
    let log = "mode = \"log\"";
    let quorum = restart(&setup, &mut processes, log).await;
    quorum.open(&sealed[4].0, &sealed[4].1).await.expect("only written down");
    let mut told = false;
    for n in 0..3 {
        let missing = "not shown: no client's authorization came with it";
        log::read(&state_of(&setup, n).join("log"), |entry| told |= entry.authorization == missing).expect("whole");
    }
    assert!(told, "the log says what would be refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_token_of_a_provider_is_believed_as_long_as_it_lives() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/prod/a"), b"v").await.expect("seals");
    let provider = Ed25519KeyPair::generate().expect("a key");
    let public = URL_SAFE_NO_PAD.encode(provider.public_key().as_ref());
    let jwks =
        format!("{{\"keys\": [{{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"1\", \"x\": \"{public}\"}}]}}");
    for config in &setup.holder_configs {
        fs::write(config.with_file_name("jwks.json"), &jwks).expect("writes");
    }
    let realm = hex::encode(REALM);
    let section = format!(
        "mode = \"require\"\n[[authorization.issuers]]\nissuer = \"https://id\"\naudience = \"volvelle\"\njwks = \"jwks.json\"\nrealms = [\"{realm}\"]"
    );
    let quorum = restart(&setup, &mut processes, &section).await;
    let token = |until: u64| {
        let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\",\"kid\":\"1\"}");
        let claims = format!("{{\"iss\":\"https://id\",\"aud\":\"volvelle\",\"sub\":\"alice\",\"exp\":{until}}}");
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(provider.sign(message.as_bytes()));
        forwarded(format!("{message}.{signature}").as_bytes()).expect("short enough")
    };
    let at = place("/prod/a");
    assert_eq!(open_as(&quorum, "p-1", &token(now() + 60), &at, &record).await, None);
    let late = open_as(&quorum, "p-1", &token(now() - 60), &at, &record).await.expect("refused");
    assert!(late.contains("holder 1: the client's authorization has expired"), "{late}");
    // A gateway with a signing key gets nothing by that where only the provider is trusted.
    let (signer, _) = signer(folder.path(), "authorization.der", &setup.quorum.identity.certificate);
    let own = signer.sign(REALM, "p-1", (now(), now() + 600)).expect("signs");
    let refused = open_as(&quorum, "p-1", &own, &at, &record).await.expect("refused");
    assert!(refused.contains("its signature is of no key that this holder trusts"), "{refused}");
}
