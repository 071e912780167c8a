//! Parameters of the kinds that clients know without asking a gateway.

use schemars::Schema;
use serde_json::{Value, json};
use volvelle_domain::connector::{Capabilities, Declaration, RotatorType};

const SSH_ROTATORS: &[RotatorType] = &[
    RotatorType { name: "password", wire_name: "user-pass-rotator", summary: "the password of an account" },
    RotatorType { name: "target", wire_name: "target-rotator", summary: "the target's own credential" },
    RotatorType { name: "key", wire_name: "user-pass-rotator", summary: "the key of an account" },
];

/// The parameters of kind `ssh`.
#[must_use]
pub fn ssh() -> Declaration {
    let text = |help: &str| json!({"type": "string", "description": help});
    let hidden = |help: &str| json!({"type": "string", "description": help, "x-secret": true});
    let target = json!({
        "host": text("name or address"),
        "port": {"type": "string", "description": "port", "default": "22"},
        "ssh-username": text("privileged account"),
        "ssh-password": hidden("its password"),
        "private-key": hidden("its private key"),
        "private-key-password": hidden("passphrase of the key"),
        "host-key": text("host key to pin instead of learning it"),
        "allow-legacy-algorithms": {"type": "boolean", "description": "speak old algorithms with old devices"}
    });
    let secret = json!({
        "same-password": {"type": "boolean", "description": "one password on all hosts of a linked target"},
        "rotator-custom-cmd": text("command with {{USERNAME}} {{NEW_PASSWORD}} {{OLD_PASSWORD}}"),
        "key-data-base64": hidden("current private key, base64"),
        "key-algorithm": text("ED25519, RSA2048, RSA3072, RSA4096, ECDSA256, ECDSA384 or ECDSA521"),
        "public-key-remote-path": text("file of the public key on the host")
    });
    Declaration {
        kind: "ssh",
        summary: "hosts reached over SSH",
        target: object(target),
        secret: object(secret),
        details_key: "ssh_target_details",
        rotator_types: SSH_ROTATORS,
        capabilities: Capabilities { witness_read: true, pinned_identity: true, linked: true },
    }
}

fn object(properties: Value) -> Schema {
    let mut schema = Schema::default();
    schema.insert("type".to_owned(), Value::from("object"));
    schema.insert("properties".to_owned(), properties);
    schema
}
