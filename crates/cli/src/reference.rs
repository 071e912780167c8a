//! The reference pages, written from the command tree and the table of operations. A test compares them with the files.

use std::fmt::Write;

use clap::{Arg, Command};
use serde_json::Value;
use volvelle_api::{Declaration, Operation, group_of};

use crate::failure::CODES;
use crate::flags::HIDDEN;
use crate::{examples, flags, locate};

const MADE: &str = "<!-- Made from the program: UPDATE_DOCS=1 cargo test -p volvelle-cli docs -->";

fn put(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// `docs/reference/cli.md`.
pub fn cli(top: &Command, ops: &[Operation]) -> String {
    let mut out = String::new();
    put(&mut out, &format!("# The command line\n\n{MADE}\n"));
    put(&mut out, INTRODUCTION);
    exit_codes(&mut out);
    environment(&mut out);
    put(&mut out, PROFILES);
    put(&mut out, "## Flags of every command\n");
    flag_table(&mut out, &top.get_arguments().filter(|a| !a.is_hide_set()).collect::<Vec<_>>());
    spellings(&mut out, ops);
    put(&mut out, "## Commands\n");
    for command in top.get_subcommands().filter(|c| !c.is_hide_set()) {
        described(&mut out, command, "volvelle", ops);
    }
    out
}

const INTRODUCTION: &str = "\
Commands are `volvelle NOUN VERB [KIND] --flags`; `--help` after any of them tells its flags, `-h` only the usual ones.
Booleans are a bare flag or a word (`--auto-rotate`, `--auto-rotate false`); lists are repeated flags.

The answer goes to standard output: a sentence or a table by default, the gateway's JSON with `--json`, what a JSONPath selects
from it with `--jsonpath`. Value getters print JSON by default, and the bare value of one static secret. Warnings, notes, hints,
errors and progress go to standard error. Colours are used on a terminal only, and not when `NO_COLOR` is set.

A SECRET is `-` (read standard input), `@FILE` (read a file), `?` or nothing (ask), or the value itself, which other users of the
machine can see: a warning says so. One line feed at the end is dropped.
";

const PROFILES: &str = "\
## Which gateway, and as whom

The first of these that is there:

1. `--data-dir DIR` or `VOLVELLE_DATA_DIR`: the administrator of a `volvelle dev` on this machine, from `DIR/admin.json`.
2. A profile that was named: `--profile NAME`, or the variables above. It counts more than `VOLVELLE_DATA_DIR`.
3. Access id and key, or a token, from the environment.
4. The default profile: the one `set-default-profile` chose, or `default`.
5. The folder `~/.volvelle/dev`, which `volvelle dev` uses when nobody says.

`--gateway-url` always says the address, and `--token` the token. An access id and its key always come from the same place.

A profile is a file `~/.volvelle/profiles/NAME.toml`, mode 0600, which `volvelle configure` writes. Profiles of the vendor's command
line in `~/.akeyless/profiles` are read too. `~/.volvelle/settings` names the default profile.

```toml
[default]
access_id = \"p-…\"
access_key = \"…\"
access_type = \"access_key\"
gateway_url = \"https://volvelle.example.com\"
```

```toml
# ~/.volvelle/settings
default_profile = \"default\"
```

Tokens are kept in `~/.volvelle/tokens.json` (mode 0600; ignored when others can read it), one for each gateway and access id.
`revoke-token` and `unconfigure` drop them.
";

fn exit_codes(out: &mut String) {
    put(out, "## Exit codes\n\n| code | meaning |\n|---|---|");
    for (code, meaning) in CODES {
        put(out, &format!("| {code} | {meaning} |"));
    }
    put(out, "");
}

fn environment(out: &mut String) {
    put(out, "## Environment\n\nThe first variable that is set counts.\n\n| variables | meaning |\n|---|---|");
    for (names, meaning) in [
        (locate::DATA_DIR, "as `--data-dir`"),
        (locate::URL, "address of the gateway, as `--gateway-url`"),
        (locate::ACCESS_ID, "access id"),
        (locate::ACCESS_KEY, "access key"),
        (locate::TOKEN, "a token got elsewhere, as `--token`"),
        (locate::PROFILE, "as `--profile`"),
        (locate::CA_CERT, "PEM file of an additional trusted root, as `--ca-cert`"),
        (&["NO_COLOR"], "no colours"),
        (&["RUST_LOG"], "what `volvelle dev` and `volvelle gateway` log, such as `info`"),
    ] {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        put(out, &format!("| {} | {meaning} |", names.join(", ")));
    }
    put(out, "");
}

fn spellings(out: &mut String, ops: &[Operation]) {
    put(
        out,
        "## Other spellings\n\nEvery operation is also a command under its name in the API and the vendor's older names.\n",
    );
    put(out, "| command | also |\n|---|---|");
    for op in ops {
        let also: Vec<String> = std::iter::once(&op.name)
            .chain(&op.aliases)
            .filter(|n| !op.cli.contains(n))
            .map(|n| format!("`{n}`"))
            .collect();
        let command = op.cli.first().map(|c| format!("`{c}`")).unwrap_or_default();
        if !also.is_empty() {
            put(out, &format!("| {command} | {} |", also.join(", ")));
        }
    }
    put(out, "");
}

fn described(out: &mut String, command: &Command, above: &str, ops: &[Operation]) {
    let path = format!("{above} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if command.has_subcommands() {
        for child in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            described(out, child, &path, ops);
        }
        return;
    }
    put(out, &format!("### {path}\n\n{about}.\n"));
    let own = path.trim_start_matches("volvelle ");
    if let Some(op) = ops.iter().find(|op| op.cli.iter().any(|c| c == own)) {
        let lines = examples::lines(&op.name);
        if !lines.is_empty() {
            put(out, &format!("```sh\n{}\n```\n", lines.join("\n")));
        }
    }
    flag_table(out, &command.get_arguments().filter(|a| !a.is_hide_set()).collect::<Vec<_>>());
}

fn flag_table(out: &mut String, args: &[&Arg]) {
    if args.is_empty() {
        return;
    }
    put(out, "| flag | value | meaning |\n|---|---|---|");
    for arg in args {
        let mut flag = arg.get_long().map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"));
        if let Some(short) = arg.get_short() {
            let _ = write!(flag, "`, `-{short}");
        }
        let needed = if arg.is_required_set() { " (required)" } else { "" };
        let takes = arg.get_action().takes_values();
        let value = arg.get_value_names().filter(|_| takes).map(|n| n.join(" ")).unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        put(out, &format!("| `{flag}`{needed} | {value} | {} |", cell(&help)));
    }
    put(out, "");
}

/// `docs/reference/api.md`.
pub fn api(ops: &[Operation]) -> String {
    let mut out = String::new();
    put(&mut out, &format!("# The API\n\n{MADE}\n"));
    put(&mut out, API);
    for op in ops {
        operation(&mut out, op);
    }
    out
}

const API: &str = "\
Every operation is `POST /OPERATION` (also under `/v2` and `/api/v2`) with a JSON object. `GET /openapi.json` describes them to
programs, `GET /health` answers 200 when the gateway is ready, `GET /metrics` has figures for Prometheus.

* `token` in the body says who calls; `auth` gives one. `uid-token` and `json` are accepted everywhere.
* Booleans and numbers may be JSON values or strings; a list may be one string; null counts as absent; unknown keys are ignored.
* Instants are RFC 3339 in UTC.
* An answer that is no success is `{\"error\", \"code\", \"hint\", \"request_id\"}`: a sentence for people, a word for programs, what
  can be done about it, and the request's name in log and audit trail. No value is ever in it.

| status | code | meaning |
|---|---|---|
| 400 | `bad_parameter`, `bad_body` | a parameter is missing or wrong |
| 400 | `target_config`, `target_auth`, `target_privilege`, `target_policy`, `target_identity`, `target_unreachable`, `target_timeout`, `target_login_budget`, `target_protocol` | the target was asked before anything was changed, and it cannot be done |
| 401 | `unauthenticated` | no token, or one that has ended; ask for a new one |
| 401 | `unauthorized` | the right is missing, whether or not there is such an object |
| 404 | `not_found`, `unknown_command` | there is no such object, or operation |
| 409 | `already_exists`, `conflict` | the name is taken, or the present state does not allow it |
| 413 | `too_large` | the body is longer than 1 MiB |
| 423 | `locked` | somebody has checked it out |
| 429 | `slow_down` | too many failed attempts to sign in |
| 500 | `internal` | a fault of the program; the log has more |
| 502 | `rotation_failed`, `rotation_partial`, `rotation_in_doubt`, `rotation_out_of_sync`, `rotation_pending` | a rotation was tried and did not succeed, or is not over |
| 503 | `unavailable` | a part the gateway needs does not answer |
| 504 | `timeout` | it took longer than allowed |

In the tables below `*` is required and `secret` is sealed and never shown again by anything but a value getter.
";

fn operation(out: &mut String, op: &Operation) {
    put(out, &format!("## {}\n\n{}. Answers {} with `{}`.", op.name, op.summary, op.status, op.answer));
    let mut also: Vec<String> = op.aliases.iter().map(|alias| format!("`/{alias}`")).collect();
    also.extend(op.cli.iter().map(|command| format!("`volvelle {command}`")));
    if !also.is_empty() {
        put(out, &format!("Also: {}.", also.join(", ")));
    }
    put(out, "");
    op.params.as_object().map(|schema| parameters(out, schema));
}

/// Whether there were any.
fn parameters(out: &mut String, schema: &serde_json::Map<String, Value>) -> bool {
    let needed: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut shown: Vec<(&String, &Value)> =
        properties.into_iter().flatten().filter(|(n, _)| !HIDDEN.contains(&n.as_str())).collect();
    if shown.is_empty() {
        return false;
    }
    shown.sort_by_key(|(name, _)| (!needed.contains(&name.as_str()), group_of(name) as u8));
    put(out, "| parameter | type | meaning |\n|---|---|---|");
    for (name, property) in shown {
        let star = if needed.contains(&name.as_str()) { "*" } else { "" };
        let secret = if property.get("x-secret").is_some() { ", secret" } else { "" };
        let kind = property["type"].as_str().unwrap_or("string");
        put(out, &format!("| `{name}`{star} | {kind}{secret} | {} |", cell(&flags::help(name, property))));
    }
    put(out, "");
    true
}

/// The second part of `docs/targets/KIND.md`: what the connector declares.
pub fn kind(declaration: &Declaration) -> String {
    let Declaration { kind, secret_kind, summary, target, secret, details_key, rotator_types, capabilities } =
        declaration;
    let mut out = String::new();
    put(&mut out, &format!("{MADE}\n\n## Declared\n\nKind `{kind}`: {summary}.\n"));
    put(&mut out, "| `rotator-type` | meaning | in answers |\n|---|---|---|");
    for rotator in *rotator_types {
        put(&mut out, &format!("| `{}` | {} | `{}` |", rotator.name, cell(rotator.summary), rotator.wire_name));
    }
    put(&mut out, "");
    let said = [
        (capabilities.witness_read, "The outcome can be read on the target, so that finding it out costs no login."),
        (
            capabilities.pinned_identity,
            "The target's identity is pinned when it is made, and a change stops everything.",
        ),
        (capabilities.linked, "A target of kind `linked` may have many hosts of this kind."),
        (capabilities.minutes, "`rotation-interval` counts minutes."),
        (capabilities.caller_proof, "Requests carry a proof of which gateway and which secret they come from."),
    ];
    said.iter().filter(|(holds, _)| *holds).for_each(|(_, sentence)| put(&mut out, &format!("* {sentence}")));
    for name in capabilities.blind {
        put(
            &mut out,
            &format!(
                "* `{name}`: nothing on the target tells whether a value opens; its answer to the change is believed."
            ),
        );
    }
    put(
        &mut out,
        &format!(
            "\n### Parameters of a target\n\nOf `/target-create-{kind}` and `/target-update-{kind}`, beside those of every \
        target; `target-get-details` answers them in `{details_key}`. `secret` is sealed and never shown again.\n"
        ),
    );
    declared(&mut out, target.as_object());
    put(
        &mut out,
        &format!(
            "### Parameters of a rotated secret\n\nOf `/rotated-secret-create-{secret_kind}` and \
        `/rotated-secret-update-{secret_kind}`, beside [those of every rotated secret](../reference/api.md#rotated-secret-create-{secret_kind}).\n"
        ),
    );
    declared(&mut out, secret.as_object());
    out
}

fn declared(out: &mut String, schema: Option<&serde_json::Map<String, Value>>) {
    if !schema.is_some_and(|schema| parameters(out, schema)) {
        put(out, "None of its own.\n");
    }
}
