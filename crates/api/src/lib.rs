//! Wire types of the operations, OpenAPI and the typed client.
