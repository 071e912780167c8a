//! Help texts, usage errors and exit codes of the program.

use std::process::{Command, Output};

fn volvelle(args: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("temp dir");
    Command::new(env!("CARGO_BIN_EXE_volvelle"))
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .env("VOLVELLE_ACCESS_ID", "p-x")
        .env("VOLVELLE_ACCESS_KEY", "k")
        .env("VOLVELLE_GATEWAY_URL", "http://127.0.0.1:9")
        .output()
        .expect("runs")
}

#[test]
fn new_and_legacy_spellings_have_help() {
    for words in [
        "rotated-secret create ssh",
        "target create ssh",
        "create-ssh-target",
        "get-rotated-secret-value",
        "audit verify",
    ] {
        let args: Vec<&str> = words.split(' ').chain(["--help"]).collect();
        assert!(volvelle(&args).status.success(), "{words}");
    }
}

#[test]
fn exit_codes_tell_usage_from_an_absent_gateway() {
    assert_eq!(volvelle(&["rotated-secret", "get-value"]).status.code(), Some(2));
    assert_eq!(volvelle(&["no-such-command"]).status.code(), Some(2));
    let out = volvelle(&["rotated-secret", "get-value", "--name", "/a"]);
    assert_eq!(out.status.code(), Some(5));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("error:") && text.contains("hint:"), "{text}");
}

#[test]
fn a_secret_on_the_command_line_is_warned_about_and_not_repeated() {
    let out = volvelle(&["create-secret", "--name", "/a", "--value", "s3cret-canary"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("warning:") && !text.contains("s3cret-canary"), "{text}");
}
