//! One line of help for every parameter, and the group under which it is shown. What must stay true: no
//! parameter of any operation is without help.

/// The heading under which a parameter is shown in help and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What the operation is about.
    Own,
    /// When a secret is rotated.
    Rotation,
    /// How generated passwords look.
    PasswordPolicy,
    /// Who may use an item meanwhile, and how many versions are kept.
    Locking,
    /// Settings of remote access, stored and given back.
    SecureAccess,
    /// Accepted, stored and given back, so that clients written for it find what they sent.
    Compatibility,
}

impl Group {
    /// The word for it in schemas (`x-group`).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Rotation => "rotation",
            Self::PasswordPolicy => "password-policy",
            Self::Locking => "locking",
            Self::SecureAccess => "secure-access",
            Self::Compatibility => "compatibility",
        }
    }

    /// The heading.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Own => "Parameters",
            Self::Rotation => "Rotation",
            Self::PasswordPolicy => "Password policy",
            Self::Locking => "Locking and versions",
            Self::SecureAccess => "Secure remote access (stored and given back)",
            Self::Compatibility => "Compatibility (accepted and given back)",
        }
    }
}

/// The group of a parameter.
#[must_use]
pub fn group_of(name: &str) -> Group {
    match name {
        "auto-rotate"
        | "rotation-interval"
        | "rotation-hour"
        | "rotation-cron"
        | "rotation-time-zone"
        | "rotation-event-in"
        | "rotate-after-disconnect"
        | "rotate-on-unlock" => Group::Rotation,
        "password-length" | "use-capital-letters" | "use-lower-letters" | "use-numbers" | "use-special-characters" => {
            Group::PasswordPolicy
        }
        "lock-on-read"
        | "lock-ttl"
        | "lock-during-sra-session"
        | "max-versions"
        | "delete_protection"
        | "keep-prev-version" => Group::Locking,
        "ara-enabled"
        | "enable-agentic-runtime-authority"
        | "enable-ai-quorum"
        | "input-rule"
        | "output-rule"
        | "host-provider"
        | "target"
        | "ProviderType"
        | "RotateAllServicesBoolean"
        | "accessibility"
        | "comment"
        | "new-comment"
        | "metadata"
        | "new-metadata"
        | "bastion-details"
        | "gateway-details"
        | "services-details"
        | "product-type"
        | "rotator-creds-type"
        | "update-version"
        | "analytics-access"
        | "event-center-access"
        | "event-forwarder-access"
        | "event-forwarders-access"
        | "gw-analytics-access"
        | "sra-reports-access"
        | "usage-reports-access"
        | "json"
        | "split-level"
        | "uid-token" => Group::Compatibility,
        _ if name.starts_with("secure-access-") => Group::SecureAccess,
        _ => Group::Own,
    }
}

/// Help for a parameter of one operation where the general one would not say enough.
#[must_use]
pub fn help_in(operation: &str, name: &str) -> Option<&'static str> {
    let is = |part: &str| operation.contains(part);
    Some(match name {
        "name" if operation == "account-create" => "name of the new account, for people",
        "name" if is("auth-method") || operation == "reset-access-key" => "path of the auth method",
        "name" if is("role") && !is("rotat") => "path of the role",
        "name" if operation.starts_with("target-") => "path of the target",
        "name" if is("rotat") => "path of the rotated secret",
        "name" if operation == "create-dfc-key" => "path of the new key",
        "tag" if operation == "create-dfc-key" => "tag (repeatable)",
        "auto-rotate" if operation == "create-dfc-key" => "must be left out: every write has a key of its own already",
        "name" if is("secret") => "path of the secret",
        "name" if is("item") || is("tags") => "path of the item",
        "type" if operation == "list-items" => "kinds to list: rotated-secret, static-secret, key (repeatable)",
        "type" if operation == "target-list" => "kinds to list, such as ssh or linked (repeatable)",
        "type" if operation == "auth-method-list" => "kinds to list, such as api_key (repeatable)",
        "type" if operation == "describe-permissions" => "kind of object: item, target, role or auth-method",
        "type" if operation.ends_with("-linked") => "kind of the hosts when there is no parent target, such as ssh",
        "type" if operation == "create-secret" => "kind of the value: generic or password",
        "path" if is("role-rule") => "path the rule is about; * at its end for everything below, + for one segment",
        "path" if operation == "list-items" => "folder to list; everything when left out",
        "path" if operation == "delete-items" => "folder to empty",
        "path" if operation == "describe-permissions" => "path asked about",
        "creds" => "the AkeylessCreds header that the web hook was sent",
        "expected_access_id" => "the account that the web hook serves",
        "expected_item_name" => "the secret it serves; any if not given",
        "host" if operation == "target-trust-host-key" => "the one host of a linked target to look at",
        "fingerprint" if is("create") => {
            "fingerprint that was compared on the host: nothing is made if it shows another (repeatable)"
        }
        "fingerprint" => "fingerprint that was compared on the host; without it the keys are only shown",
        "version" if is("delete") => "one old version to delete; -1 is the whole item",
        "version" if operation == "set-item-state" => "accepted; the state belongs to the whole item",
        "rotated-password" if is("repair") => "the password the account really has, when somebody knows it",
        "key-data-base64" if is("repair") => "the private key the account really has, when somebody knows it (base64)",
        "max-versions" if is("account") => "versions kept of an item that says nothing, 1 to 300",
        "password-length" if is("account") => "length of generated passwords where nothing else is said, 5 to 128",
        "path" if operation == "explain-access" => "path asked about",
        "type" if operation == "explain-access" => {
            "kind of rule: item-rule, target-rule, role-rule, auth-method-rule or search-rule"
        }
        "am-name" if operation == "explain-access" => "only this auth method",
        "path" if operation == "folder-list" => "the folder; the root when left out",
        "path" if operation == "item-search" => "only what lies in this folder",
        "type" if operation == "item-search" => "rotated-secret or static-secret",
        "filter" if operation == "item-search" => "list only names that hold this text, in any case",
        "target-name" if operation == "item-search" => "only secrets on this target",
        "rate" if operation == "fragments-rekey" => {
            "records wrapped anew in a second by each gateway, at most; 200 when left out; may be changed at any time"
        }
        "suite" if operation == "fragments-rekey" => {
            "cryptographic suite of the new keys: ristretto255 or p256; when left out, each account keeps its own"
        }
        "status" if operation == "fragments-rekey" => "only show how far it is; begin nothing",
        "retire" if operation == "fragments-rekey" => {
            "have the holders destroy the old keys; refused while any record is under one"
        }
        "ttl" => "minutes the rule lives; 0 is for ever",
        _ => return None,
    })
}

/// Help for a parameter known by name; empty for an unknown one.
#[must_use]
pub fn help_of(name: &str) -> &'static str {
    own(name).or_else(|| schedule_and_policy(name)).or_else(|| identity(name)).or_else(|| stored(name)).unwrap_or("")
}

fn own(name: &str) -> Option<&'static str> {
    Some(match name {
        "name" => "path of the object",
        "names" => "path of the secret",
        "description" => "free text for people",
        "comment" | "metadata" => "older spelling of description",
        "new-comment" | "new-metadata" => "new description, older spelling",
        "new-name" => "new path: the object is moved there with everything it has",
        "target-name" => "path of the target",
        "parent-target-name" => "target whose credential and settings every host uses",
        "rotator-type" => "what is rotated: password, target or key",
        "authentication-credentials" => "who logs in: use-user-creds or use-target-creds",
        "rotator-creds-type" => "older spelling of authentication-credentials",
        "rotated-username" => "account to rotate",
        "rotated-password" => "its present password; not needed with use-target-creds",
        "ssh-username" => "the privileged user; for a rotated secret: older spelling of rotated-username",
        "ssh-password" => "the privileged user's password; for a rotated secret: older spelling of rotated-password",
        "key-data-base64" => "present private key (base64)",
        "same-password" => "give all hosts of a linked target the same password",
        "skip-dry-run" => "do not log in to the target to test everything first",
        "host" => "one host of a linked target",
        "hosts" => "hosts as host[:port][;description], comma-separated",
        "add-hosts" => "hosts to add, as host[:port][;description], comma-separated",
        "rm-hosts" => "hosts to remove, comma-separated",
        "version" => "version number; the current one when left out",
        "target-version" => "version number of the target",
        "old-version" => "version to make current again",
        "last-version" => "refuse unless this is the newest version",
        "new-version" => "write a new version",
        "update-version" => "older spelling of new-version",
        "keep-prev-version" => "keep the version before",
        "path" => "path; * at its end for everything below",
        "item" => "path of an item (repeatable)",
        "item-id" => "number of the item, instead of its name",
        "display-id" => "display id of the item, instead of its name",
        "item-type" => "kind of item the version settings are for",
        "filter" => "list only names that hold this text",
        "tag" => "list only items with this tag",
        "tags" => "tag (repeatable)",
        "key" | "protection_key" => {
            "path of the protection key that values are sealed with; Default is the account's own"
        }
        "alg" => "algorithm: AES256GCM",
        "customer-frg-id" => "id of the customer's fragment, cf-…, without which nothing sealed with the key is opened",
        "add-tag" => "tag to add (repeatable)",
        "rm-tag" => "tag to remove (repeatable)",
        "sub-types" => "sub-kinds to list (repeatable)",
        "type" => "kind",
        "current-folder" => "list this folder only, not what lies deeper",
        "minimal-view" => "answer names, kinds and dates only, which is quicker",
        "modified-after" => "list only what was changed after this time (seconds since 1970)",
        "auto-pagination" => "enabled answers all at once, disabled one page",
        "pagination-token" => "next_page of the answer before",
        "limit" => "most entries to answer",
        "state" => {
            "only in this state: settled, new, rotating, failed, overdue, in_doubt, out_of_sync, disabled or static (repeatable)"
        }
        "kind" => "only on targets of this kind, such as ssh (repeatable)",
        "sort" => "order: name, next, last, state or modified",
        "descending" => "the other way round",
        "days" => "days to look back and ahead, 1 to 90",
        "test-only" => "test the connection and make nothing",
        "show-versions" => "also show the versions that are kept",
        "ignore-cache" => "read past every cache",
        "value" => "the secret value",
        "format" => "how the value is shown: text, json or key-value",
        "multiline" | "multiline_value" => "the value has several lines",
        "pretty-print" => "lay out JSON values for reading",
        "item-custom-fields" => "own fields (repeatable), or a JSON object",
        "desired-state" => "Enabled or Disabled",
        "actions" => "what is refused to others meanwhile: read, update or both, comma-separated",
        "delete-immediately" => "delete at once; items that are no keys always are",
        "delete-in-days" => "days until a key is deleted",
        "force-delete" => "delete although the target refuses to take off the credential that Volvelle made there",
        "force-deletion" => "delete although it is in use",
        "rotate-all-services" => "rotate the services of the account as well",
        "action" => "list only this operation, such as rotate_item",
        "holder" => "index of the holder in the roster",
        "actor" => "list only what this access id did",
        "object" => "list only what was done to this path",
        "after" => "list only entries after this sequence number",
        "fingerprint" => "fingerprint to accept",
        "accessibility" => "regular, or personal items",
        _ => return None,
    })
}

fn schedule_and_policy(name: &str) -> Option<&'static str> {
    Some(match name {
        "auto-rotate" => "rotate on schedule",
        "rotation-interval" => "days between rotations, 1 to 365",
        "rotation-hour" => "hour of the rotation, UTC, 0 to 23",
        "rotation-cron" => "cron expression instead of an interval: '0 3 * * SUN'",
        "rotation-time-zone" => "time zone of the cron expression, such as Europe/Berlin",
        "rotation-event-in" => "days before a rotation to tell of it (repeatable)",
        "rotate-after-disconnect" => "rotate when a remote session ends",
        "rotate-on-unlock" => "rotate when the item is checked in",
        "password-length" => "length of generated passwords, 5 to 128",
        "use-capital-letters" => "capital letters in generated passwords",
        "use-lower-letters" => "lower-case letters in generated passwords",
        "use-numbers" => "digits in generated passwords",
        "use-special-characters" => "special characters in generated passwords",
        "delete_protection" => "refuse deletion until this is switched off",
        "lock-on-read" => "whoever reads the value checks the item out",
        "lock-ttl" => "minutes a check-out lasts",
        "lock-during-sra-session" => "lock while a remote session uses it",
        "max-versions" => "versions to keep, 1 to 300",
        "company-name" => "name of the account, for people",
        "default-key-name" => "accepted; every account has one key of its own",
        "default-versioning" => "keep versions of items that say nothing",
        "force-new-versions" => "every change makes a new version",
        "item-locking-enabled" => "allow items to be checked out",
        "jwt-ttl-default" => "minutes a token lives when nobody says",
        "jwt-ttl-min" => "fewest minutes a token may live",
        "jwt-ttl-max" => "most minutes a token may live",
        "max-rotation-interval" => "most days between rotations that a secret may have",
        "max-rotation-interval-enable" => "enforce the longest interval",
        _ => return None,
    })
}

fn identity(name: &str) -> Option<&'static str> {
    Some(match name {
        "token" => "token from auth",
        "uid-token" => "universal identity token",
        "access-id" => "access id, p-…",
        "access-key" => "access key",
        "jwt" => "your own token of an OIDC provider, for holders that want to see one",
        "access-type" => "how to sign in: access_key",
        "access-expires" => "when the access ends (seconds since 1970); 0 is never",
        "allowed-client-type" => "kinds of client that may sign in (repeatable)",
        "audit-logs-claims" => "sub-claims to note in the audit trail (repeatable)",
        "bound-ips" => "networks to sign in from, such as 10.0.0.0/8 (repeatable)",
        "gw-bound-ips" => "networks of gateways that may tell the client's address (repeatable)",
        "expiration-event-in" => "days before the end at which to tell of it (repeatable)",
        "force-sub-claims" => "a role must be given with sub-claims",
        "jwt-ttl" => "minutes a token lives; 0 is the account's default",
        "product-type" => "products that may be used",
        "role-name" => "path of the role",
        "am-name" => "path of the auth method",
        "assoc-id" => "id that assoc answered; role get shows it",
        "capability" => "read, create, update, delete, list or deny (repeatable)",
        "rule-type" => "kind of rule: item-rule, target-rule, role-rule, auth-method-rule or search-rule (audit trail)",
        "sub-claims" => "claims a caller must have, as NAME=VALUE,VALUE (repeatable) or a JSON object",
        "case-sensitive" => "compare sub-claims with case",
        "audit-access" => "which part of the audit trail the role may read: none, own or all",
        _ => return None,
    })
}

fn stored(name: &str) -> Option<&'static str> {
    Some(match name {
        "json" => "output hint of the vendor's command line; changes nothing",
        "split-level" => "accepted; a key always belongs to all holders of the roster",
        "ProviderType" => "kind of the rotated secret; the target says it already",
        "RotateAllServicesBoolean" => "other spelling of rotate-all-services",
        "bastion-details" | "gateway-details" | "services-details" => "also show these details",
        "host-provider" => "where hosts come from: explicit or target",
        "target" => "targets for remote access (repeatable)",
        "input-rule" => "input rule as name=…,rule=… (repeatable)",
        "output-rule" => "output rule as name=…,rule=… (repeatable)",
        "ara-enabled" | "enable-agentic-runtime-authority" => "agentic runtime authority",
        "enable-ai-quorum" => "quorum for agents",
        "analytics-access" => "analytics: none, own or all",
        "event-center-access" => "event centre: none, own or all",
        "event-forwarder-access" | "event-forwarders-access" => "event forwarders: none, own or all",
        "gw-analytics-access" => "gateway analytics: none, own or all",
        "sra-reports-access" => "remote access reports: none, own or all",
        "usage-reports-access" => "usage reports: none, own or all",
        "secure-access-enable" => "allow remote access with this secret",
        "secure-access-host" => "host for remote access (repeatable)",
        "secure-access-allow-external-user" => "let a user from outside sign in",
        "secure-access-bastion-issuer" => "issuer of the bastion's certificates",
        "secure-access-certificate-issuer" => "issuer of the user's certificates",
        "secure-access-enforce-hosts-restriction" => "allow no other hosts",
        "secure-access-rdp-domain" => "domain for remote desktop",
        "secure-access-rdp-user" => "user for remote desktop",
        "secure-access-ssh-creds" => "how the SSH session signs in",
        "secure-access-ssh-user" => "user for SSH",
        "secure-access-target-type" => "kind of the target",
        "secure-access-url" => "address to open",
        "secure-access-web" => "allow access with a browser",
        "secure-access-web-browsing" => "browse in an isolated browser",
        "secure-access-web-proxy" => "browse through a proxy",
        _ => return None,
    })
}
