//! Help, usage errors, completions and man pages; nothing here needs a gateway.

use std::path::Path;
use std::process::Command;

use super::program::Person;

/// Commands whose help is kept as it was read and accepted; UPDATE_DOCS=1 accepts it as it is now.
const SNAPSHOTS: &[&str] = &[
    "",
    "rotated-secret",
    "rotated-secret create ssh",
    "rotated-secret rotate",
    "rotated-secret get-value",
    "target create ssh",
    "target trust-host-key",
    "role set-rule",
    "secret create",
    "configure",
    "dev",
];

#[test]
fn the_help_of_the_main_commands_is_as_it_was_accepted() {
    for words in SNAPSHOTS {
        let name = if words.is_empty() { "volvelle".to_owned() } else { words.replace(' ', "-") };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
        let now = Person::new().succeeds(&format!("{words} --help"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &now).expect("writing the snapshot");
        }
        let accepted = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(now, accepted, "the help of `volvelle {words}` changed; UPDATE_DOCS=1 accepts it");
    }
}

#[test]
fn every_operation_is_a_command_under_its_own_name_and_every_alias_and_tells_every_flag() {
    let person = Person::new();
    for op in volvelle_api::operations(&volvelle_gateway::declarations()) {
        let names = std::iter::once(&op.name).chain(&op.aliases).chain(&op.cli);
        for name in names {
            let help = person.succeeds(&format!("{name} --help"));
            assert!(help.lines().next().is_some_and(|about| about.len() > 10), "{name} has no about text");
        }
        let properties = op.params.get("properties").and_then(|p| p.as_object()).expect("parameters");
        for (param, property) in properties {
            let text = property["description"].as_str().unwrap_or_default();
            assert!(text.len() > 2, "parameter {param} of {} has no help", op.name);
        }
    }
}

#[test]
fn the_vendors_spellings_are_commands() {
    let person = Person::new();
    for words in [
        "create-rotated-secret",
        "update-rotated-secret",
        "get-rotated-secret-value",
        "gateway-rotate-secret",
        "gateway-list-rotated-secrets",
        "rotate-secret",
        "gateway-update-item",
        "create-ssh-target",
        "update-ssh-target",
        "create-linked-target",
        "update-linked-target",
        "get-target",
        "get-target-details",
        "list-targets",
        "delete-target",
        "list-items",
        "describe-item",
        "update-item",
        "delete-item",
        "delete-items",
        "get-tags",
        "set-item-state",
        "lock-item",
        "unlock-item",
        "create-secret",
        "get-secret-value",
        "update-secret-val",
        "rollback-secret",
        "create-role",
        "update-role",
        "get-role",
        "list-roles",
        "delete-role",
        "set-role-rule",
        "delete-role-rule",
        "assoc-role-am",
        "update-assoc",
        "delete-assoc",
        "describe-permissions",
        "create-auth-method",
        "update-auth-method",
        "get-auth-method",
        "list-auth-methods",
        "delete-auth-method",
        "reset-access-key",
        "get-account-settings",
        "update-account-settings",
        "auth",
        "validate-token",
        "rotated-secret create ssh",
        "rotated-secret update ssh",
        "rotated-secret get-value",
        "rotated-secret list",
        "rotated-secret delete",
        "rotated-secret rotate",
        "rotated-secret verify",
        "rotated-secret repair",
        "rotated-secret history",
        "target create ssh",
        "target update ssh",
        "target create linked",
        "target update linked",
        "target get",
        "target get-details",
        "target list",
        "target delete",
        "target trust-host-key",
        "auth-method create api-key",
        "auth-method update api-key",
        "auth-method get",
        "auth-method list",
        "auth-method delete",
        "account create",
        "fragments status",
        "fragments refresh",
        "fragments repair",
        "fragments add-holder",
        "fragments drop-holder",
        "fragments rekey",
        "fragments doctor",
        "audit list",
        "audit verify",
    ] {
        person.succeeds(&format!("{words} --help"));
    }
}

#[test]
fn wrong_command_lines_end_with_2_and_say_what_is_wrong() {
    let person = Person::new().with("VOLVELLE_ACCESS_ID", "p-x").with("VOLVELLE_ACCESS_KEY", "k");
    for line in [
        "",
        "no-such-command",
        "rotated-secret get-value",
        "rotated-secret rotate",
        "rotated-secret rotate --path /*/root",
        "lock-item -n /a --lock-ttl soon",
        "create-secret -n /a",
        "target list --gateway-url gateway:8080",
    ] {
        let said = person.run(line);
        assert_eq!(said.code, 2, "volvelle {line}: {}", said.err);
        assert!(!said.err.is_empty() && said.out.is_empty(), "volvelle {line}");
    }
}

#[test]
fn nobody_signed_in_is_told_where_to_begin() {
    let said = Person::new().run("target list");
    assert_eq!(said.code, 4);
    assert!(
        said.err.contains("error:") && said.err.contains("hint:") && said.err.contains("configure"),
        "{}",
        said.err
    );
}

#[test]
fn a_gateway_that_is_not_there_ends_with_5() {
    let person = Person::new()
        .with("AKEYLESS_ACCESS_ID", "p-x")
        .with("AKEYLESS_ACCESS_KEY", "k")
        .with("AKEYLESS_GATEWAY_URL", "http://127.0.0.1:9");
    let said = person.run("get-target -n /a");
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains("http://127.0.0.1:9: connection refused"), "{}", said.err);
}

#[test]
fn a_secret_on_the_command_line_is_warned_about_and_not_repeated() {
    let person = Person::new().with("VOLVELLE_ACCESS_ID", "p-x").with("VOLVELLE_GATEWAY_URL", "http://127.0.0.1:9");
    let said = person.run("create-secret --name /a --value s3cret-canary");
    assert!(said.err.contains("warning:") && !said.err.contains("s3cret-canary"), "{}", said.err);
    let twice = person.run("target create ssh -n /a --ssh-password - --private-key -");
    assert_eq!(twice.code, 2, "{}", twice.err);
    let missing = person.run("create-secret -n /a --value @/no/such/file");
    assert!(missing.code == 1 && missing.err.contains("/no/such/file"), "{}", missing.err);
}

#[test]
fn completions_for_bash_are_valid_bash() {
    let text = Person::new().succeeds("completions bash");
    assert!(text.contains("rotated-secret") && text.contains("--rotation-interval"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writing");
    let status = Command::new("bash").arg("-n").arg(file.path()).status().expect("bash");
    assert!(status.success());
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(Person::new().succeeds(&format!("completions {shell}")).len() > 1000, "{shell}");
    }
}

#[test]
fn man_pages_are_written_for_every_shown_command() {
    let person = Person::new();
    let dir = person.home().join("man");
    person.succeeds(&format!("man {}", dir.display()));
    let page = std::fs::read_to_string(dir.join("volvelle-rotated-secret-create-ssh.1")).expect("the page");
    assert!(page.contains("rotation\\-interval"), "{page}");
    assert!(dir.join("volvelle.1").exists() && dir.join("volvelle-configure.1").exists());
    assert!(!dir.join("volvelle-reference.1").exists());
}
