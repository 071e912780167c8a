//! The OpenAPI 3.1 document of a table of operations.

use serde_json::{Map, Value, json};

use crate::Operation;

/// Describes `ops`, each with its aliases, as `POST` under the root.
#[must_use]
pub fn openapi(ops: &[Operation]) -> Value {
    let mut paths = Map::new();
    for op in ops {
        for (n, name) in std::iter::once(&op.name).chain(&op.aliases).enumerate() {
            let mut responses = Map::new();
            responses.insert(
                op.status.to_string(),
                json!({
                    "description": "Done.", "content": {"application/json": {"schema": {"description": op.answer}}}
                }),
            );
            responses.insert(
                "default".to_owned(),
                json!({
                    "description": "Not done.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
                }),
            );
            let body = json!({"required": true, "content": {"application/json": {"schema": op.params.as_value()}}});
            paths.insert(format!("/{name}"), json!({"post": {
                "operationId": name, "summary": op.summary, "deprecated": n > 0, "requestBody": body, "responses": responses
            }}));
        }
    }
    let text = json!({"type": "string"});
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Volvelle", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": {"ErrorBody": {"type": "object", "required": ["error"],
            "properties": {"error": text, "code": text, "hint": text, "request_id": text}}}}
    })
}
