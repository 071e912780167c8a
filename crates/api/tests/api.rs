//! The table is complete, bodies are read as clients send them, and the OpenAPI document is sound.

use serde_json::{Value, json};
use volvelle_api::{find, openapi, operations, quirks::normalise};

const NAMES: &str = "auth validate-token auth-method-create-api-key auth-method-get auth-method-list auth-method-update-api-key auth-method-delete reset-access-key create-role update-role get-role list-roles delete-role set-role-rule delete-role-rule assoc-role-am update-assoc delete-assoc describe-permissions target-create-linked target-update-linked create-linked-target target-get target-get-details target-list target-delete get-target list-targets rotated-secret-list rotated-secret-get-value get-rotated-secret-value gateway-rotate-secret rotated-secret-delete describe-item list-items update-item delete-item delete-items get-tags set-item-state lock-item unlock-item create-secret get-secret-value update-secret-val rollback-secret get-account-settings update-account-settings create-rotated-secret update-rotated-secret gateway-update-item";

#[test]
fn every_operation_is_in_the_table_once() {
    let ops = operations(&[]);
    for name in NAMES.split(' ') {
        assert!(find(&ops, name).is_some(), "{name} is missing");
    }
    let mut all: Vec<&String> = ops.iter().flat_map(|o| std::iter::once(&o.name).chain(&o.aliases)).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a name is there twice");
}

#[test]
fn both_spellings_of_values_are_read() {
    let ops = operations(&[]);
    let create = find(&ops, "create-rotated-secret").expect("in the table");
    let body = json!({"name": "/a", "target-name": "/t", "rotator-type": "password", "auto-rotate": "true",
        "rotation-interval": "30", "rotation-hour": 3, "tags": "x", "description": null, "never-heard-of": 1, "password-length": ""});
    let got = normalise(body.as_object().expect("object"), &create.params).expect("readable");
    assert_eq!(
        Value::Object(got),
        json!({"name": "/a", "target-name": "/t", "rotator-type": "password", "auto-rotate": true,
        "rotation-interval": 30, "rotation-hour": 3, "tags": ["x"]})
    );
    let names = find(&ops, "get-rotated-secret-value").expect("in the table");
    let got = normalise(json!({"names": ["/a"]}).as_object().expect("object"), &names.params).expect("readable");
    assert_eq!(got["names"], "/a");
}

#[test]
fn errors_name_the_parameter_and_not_the_value() {
    let ops = operations(&[]);
    let create = find(&ops, "create-rotated-secret").expect("in the table");
    let body = json!({"name": "/a", "auto-rotate": "s3cret"});
    let error = normalise(body.as_object().expect("object"), &create.params).expect_err("not a boolean");
    assert_eq!(error.param, "auto-rotate");
    assert!(!error.to_string().contains("s3cret"));
    let error = normalise(json!({}).as_object().expect("object"), &find(&ops, "get-role").expect("there").params)
        .expect_err("no name");
    assert_eq!(error.param, "name");
}

#[test]
fn openapi_names_every_path() {
    let ops = operations(&[]);
    let doc = openapi(&ops);
    assert_eq!(doc["openapi"], "3.1.0");
    for op in &ops {
        let body =
            &doc["paths"][format!("/{}", op.name)]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["type"], "object", "{}", op.name);
    }
}
