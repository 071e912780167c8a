//! The tables. Every primary key begins with the account, so that tables can be divided by it.
//!
//! Statements are only ever appended. Differences between the engines: the type of bytes,
//! that PostgreSQL must be told to sort names by their bytes, and SQLite to keep the audit log in the order of its key.

use crate::db::values;
use crate::{StoreError, Tx};

const MIGRATIONS: &[&str] = &[
    "CREATE TABLE accounts (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, realm {blob} NOT NULL UNIQUE, key_id BIGINT NOT NULL,
        operator BIGINT NOT NULL, generation BIGINT NOT NULL, content BIGINT NOT NULL, created_at BIGINT NOT NULL,
        settings TEXT NOT NULL)",
    "CREATE TABLE audit_heads (
        account TEXT NOT NULL PRIMARY KEY REFERENCES accounts (id), seq BIGINT NOT NULL, hash {blob} NOT NULL)",
    "CREATE TABLE audit (
        account TEXT NOT NULL, seq BIGINT NOT NULL, entries TEXT NOT NULL, hash_before {blob} NOT NULL,
        hash {blob} NOT NULL, PRIMARY KEY (account, seq)) {clustered}",
    "CREATE TABLE counters (
        account TEXT NOT NULL REFERENCES accounts (id), family TEXT NOT NULL, last BIGINT NOT NULL,
        PRIMARY KEY (account, family))",
    "CREATE TABLE auth_methods (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, access_id TEXT NOT NULL UNIQUE,
        name {name} NOT NULL, kind TEXT NOT NULL, description TEXT NOT NULL, key_hash {blob} NOT NULL,
        key_changed_at BIGINT NOT NULL, limits TEXT NOT NULL, delete_protection BIGINT NOT NULL,
        created_at BIGINT NOT NULL, modified_at BIGINT NOT NULL, PRIMARY KEY (account, id), UNIQUE (account, name))",
    "CREATE TABLE tokens (
        account TEXT NOT NULL, hash {blob} NOT NULL UNIQUE, auth_method BIGINT NOT NULL, sub_claims TEXT NOT NULL,
        issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (account, hash),
        FOREIGN KEY (account, auth_method) REFERENCES auth_methods (account, id))",
    "CREATE INDEX tokens_ending ON tokens (expires_at)",
    "CREATE INDEX tokens_of_method ON tokens (account, auth_method)",
    "CREATE TABLE roles (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, name {name} NOT NULL,
        description TEXT NOT NULL, delete_protection BIGINT NOT NULL, created_at BIGINT NOT NULL,
        modified_at BIGINT NOT NULL, PRIMARY KEY (account, id), UNIQUE (account, name))",
    "CREATE TABLE role_rules (
        account TEXT NOT NULL, role BIGINT NOT NULL, path TEXT NOT NULL, rule_type TEXT NOT NULL, place BIGINT NOT NULL,
        capabilities TEXT NOT NULL, ttl_minutes BIGINT NOT NULL, set_at BIGINT NOT NULL,
        PRIMARY KEY (account, role, path, rule_type), FOREIGN KEY (account, role) REFERENCES roles (account, id))",
    "CREATE TABLE role_assocs (
        account TEXT NOT NULL, id TEXT NOT NULL, place BIGINT NOT NULL, role BIGINT NOT NULL, auth_method BIGINT NOT NULL,
        sub_claims TEXT NOT NULL, case_sensitive BIGINT NOT NULL, PRIMARY KEY (account, id),
        UNIQUE (account, role, auth_method), FOREIGN KEY (account, role) REFERENCES roles (account, id),
        FOREIGN KEY (account, auth_method) REFERENCES auth_methods (account, id))",
    "CREATE INDEX role_assocs_of_method ON role_assocs (account, auth_method)",
    "CREATE TABLE targets (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, uid {blob} NOT NULL UNIQUE,
        name {name} NOT NULL, kind TEXT NOT NULL, params TEXT NOT NULL, last_version BIGINT NOT NULL,
        delete_protection BIGINT NOT NULL, settings TEXT NOT NULL, parent BIGINT, created_at BIGINT NOT NULL,
        modified_at BIGINT NOT NULL, PRIMARY KEY (account, id), UNIQUE (account, name),
        FOREIGN KEY (account, parent) REFERENCES targets (account, id))",
    "CREATE INDEX targets_of_parent ON targets (account, parent) WHERE parent IS NOT NULL",
    "CREATE TABLE target_versions (
        account TEXT NOT NULL, target BIGINT NOT NULL, version BIGINT NOT NULL, params TEXT NOT NULL,
        sealed {blob} NOT NULL, created_at BIGINT NOT NULL, created_by TEXT NOT NULL,
        PRIMARY KEY (account, target, version), FOREIGN KEY (account, target) REFERENCES targets (account, id))",
    "CREATE TABLE breakers (
        account TEXT NOT NULL REFERENCES accounts (id), target BIGINT NOT NULL, class TEXT NOT NULL,
        failures BIGINT NOT NULL, open_until BIGINT NOT NULL, PRIMARY KEY (account, target, class))",
    "CREATE INDEX breakers_open ON breakers (open_until)",
    "CREATE TABLE items (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, uid {blob} NOT NULL UNIQUE,
        name {name} NOT NULL, kind TEXT NOT NULL, enabled BIGINT NOT NULL, delete_protection BIGINT NOT NULL,
        current_version BIGINT NOT NULL, last_version BIGINT NOT NULL, settings TEXT NOT NULL, target BIGINT,
        rotator TEXT NOT NULL, status TEXT, next_rotation_at BIGINT, created_at BIGINT NOT NULL,
        modified_at BIGINT NOT NULL, PRIMARY KEY (account, id), UNIQUE (account, name),
        FOREIGN KEY (account, target) REFERENCES targets (account, id))",
    "CREATE INDEX items_due ON items (next_rotation_at, account, id) WHERE enabled = 1 AND next_rotation_at IS NOT NULL",
    "CREATE INDEX items_of_target ON items (account, target, id) WHERE target IS NOT NULL",
    "CREATE INDEX items_by_status ON items (status, next_rotation_at, enabled) WHERE status IS NOT NULL",
    "CREATE TABLE item_versions (
        account TEXT NOT NULL REFERENCES accounts (id), item BIGINT NOT NULL, version BIGINT NOT NULL, host TEXT NOT NULL,
        state TEXT NOT NULL, sealed {blob} NOT NULL, created_at BIGINT NOT NULL, created_by TEXT NOT NULL,
        reason TEXT NOT NULL, verified_at BIGINT, PRIMARY KEY (account, item, version, host))",
    "CREATE UNIQUE INDEX one_current_version ON item_versions (account, item, host) WHERE state = 'current'",
    "CREATE TABLE slots (
        account TEXT NOT NULL REFERENCES accounts (id), item BIGINT NOT NULL, host TEXT NOT NULL, memory TEXT NOT NULL,
        failed_logins TEXT NOT NULL, PRIMARY KEY (account, item, host))",
    "CREATE TABLE rotations (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, item BIGINT NOT NULL, host TEXT NOT NULL,
        target BIGINT NOT NULL, state TEXT NOT NULL, open BIGINT, cause TEXT NOT NULL, requested_by TEXT NOT NULL,
        fence BIGINT NOT NULL, lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL, not_before BIGINT NOT NULL,
        started_at BIGINT NOT NULL, ended_at BIGINT, message TEXT NOT NULL, PRIMARY KEY (account, id))",
    "CREATE UNIQUE INDEX one_open_rotation ON rotations (account, item, host) WHERE open = 1",
    "CREATE INDEX rotations_waiting ON rotations (not_before, account, id, target, host) WHERE open = 1",
    "CREATE INDEX rotations_leased ON rotations (lease_until) WHERE open = 1",
    "CREATE INDEX rotations_of_item ON rotations (account, item, id, host)",
    "ALTER TABLE items ADD COLUMN last_rotation_at BIGINT",
    "CREATE INDEX items_doing ON items (account, kind, enabled, status, next_rotation_at, name, id)",
    "CREATE INDEX items_by_age ON items (account, (COALESCE(last_rotation_at, created_at)), name)",
    "ALTER TABLE rotations ADD COLUMN stages TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX rotations_ended ON rotations (account, ended_at) WHERE ended_at IS NOT NULL",
    "CREATE TABLE console_sessions (
        account TEXT NOT NULL REFERENCES accounts (id), hash {blob} NOT NULL UNIQUE, started_at BIGINT NOT NULL,
        seen_at BIGINT NOT NULL, PRIMARY KEY (account, hash))",
    "CREATE TABLE rekeys (
        account TEXT NOT NULL PRIMARY KEY REFERENCES accounts (id), old_key BIGINT NOT NULL, new_key BIGINT NOT NULL,
        stage TEXT NOT NULL, place TEXT NOT NULL, total BIGINT NOT NULL, done BIGINT NOT NULL, skipped BIGINT NOT NULL,
        rate BIGINT NOT NULL, fence BIGINT NOT NULL, lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL,
        started_at BIGINT NOT NULL, switched_at BIGINT, ended_at BIGINT, message TEXT NOT NULL)",
    "CREATE TABLE tombstones (
        account TEXT NOT NULL REFERENCES accounts (id), id BIGINT NOT NULL, input {blob} NOT NULL, holders BIGINT NOT NULL,
        deleted_at BIGINT NOT NULL, PRIMARY KEY (account, id))",
    "ALTER TABLE tokens ADD COLUMN statement {blob}",
    "ALTER TABLE items ADD COLUMN protection_key BIGINT",
    "ALTER TABLE items ADD COLUMN customer_check TEXT",
    "ALTER TABLE targets ADD COLUMN protection_key BIGINT",
    "ALTER TABLE targets ADD COLUMN customer_check TEXT",
    "CREATE INDEX items_of_key ON items (account, protection_key) WHERE protection_key IS NOT NULL",
    "CREATE INDEX targets_of_key ON targets (account, protection_key) WHERE protection_key IS NOT NULL",
    "CREATE INDEX protection_keys ON items (account, name) WHERE kind = 'key'",
    "ALTER TABLE rekeys ADD COLUMN suite BIGINT NOT NULL DEFAULT 1",
];

/// Brings the tables to the newest form, in the caller's transaction.
pub(crate) async fn migrate(tx: &mut Tx, postgres: bool) -> Result<(), StoreError> {
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)", values![]).await?;
    if postgres {
        tx.execute("LOCK TABLE schema_version IN EXCLUSIVE MODE", values![]).await?;
    }
    let done = match tx.row("SELECT COALESCE(MAX(version), 0) FROM schema_version", values![]).await? {
        Some(row) => row.number(0, "a schema version")?,
        None => 0_usize,
    };
    let (blob, name, clustered) =
        if postgres { ("BYTEA", "TEXT COLLATE \"C\"", "") } else { ("BLOB", "TEXT", "WITHOUT ROWID") };
    for (n, statement) in MIGRATIONS.iter().enumerate().skip(done) {
        tx.execute(
            &statement.replace("{blob}", blob).replace("{clustered}", clustered).replace("{name}", name),
            values![],
        )
        .await?;
        let version = i64::try_from(n + 1).map_err(|_| StoreError::Corrupt("a schema version"))?;
        tx.execute("INSERT INTO schema_version (version) VALUES ($1)", values![version]).await?;
    }
    Ok(())
}
