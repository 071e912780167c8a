//! Examples shown at the end of a command's help, and what else the command is called.

use volvelle_api::Operation;

/// What stands after the flags of an operation's help.
pub fn of(op: &Operation) -> String {
    let mut out = String::new();
    let lines = lines(&op.name);
    if !lines.is_empty() {
        out.push_str("Examples:\n");
        for line in lines {
            out.push_str(&format!("  {line}\n"));
        }
        out.push('\n');
    }
    let others: Vec<&str> =
        std::iter::once(&op.name).chain(&op.aliases).filter(|n| !op.cli.contains(n)).map(String::as_str).collect();
    if !others.is_empty() {
        out.push_str(&format!("Also spelled: {}. ", others.join(", ")));
    }
    out.push_str(&format!("API: POST /{}", op.name));
    out
}

/// The examples of an operation.
pub fn lines(operation: &str) -> &'static [&'static str] {
    match operation {
        "fragments-rekey" => &[
            "volvelle fragments rekey --rate 500    # another key for every account",
            "volvelle fragments rekey --suite p256  # the same, to keys on NIST's curve",
            "volvelle fragments rekey --status      # how far it is",
            "volvelle fragments rekey --retire      # when nothing is left, and after a backup",
        ],
        "target-create-ssh" => &[
            "volvelle target create ssh -n /prod/web1 --host web1 --ssh-username root \\",
            "    --ssh-password",
            "volvelle target create ssh -n /prod/web2 --host 10.0.0.2 --ssh-username rot \\",
            "    --private-key @id_ed25519",
        ],
        "target-create-linked" => &[
            "volvelle target create linked -n /prod/web --parent-target-name /prod/web1 \\",
            "    --hosts 'web1;first,web2:2222'",
        ],
        "target-trust-host-key" => &[
            "volvelle target trust-host-key -n /prod/web1",
            "volvelle target trust-host-key -n /prod/web1 --fingerprint SHA256:…",
        ],
        "rotated-secret-create-ssh" => &[
            "volvelle rotated-secret create ssh -n /prod/root --target-name /prod/web1 \\",
            "    --rotator-type password --rotated-username root \\",
            "    --authentication-credentials use-target-creds --auto-rotate --rotation-interval 30",
        ],
        "target-create-ldap" => &[
            "volvelle target create ldap -n /prod/directory --ldap-url ldaps://ldap.example.org \\",
            "    --bind-dn cn=rotator,ou=services,dc=example,dc=org --bind-dn-password --ldap-ca-cert @ca.pem",
        ],
        "rotated-secret-create-ldap" => &[
            "volvelle rotated-secret create ldap -n /prod/app1 --target-name /prod/directory \\",
            "    --rotator-type ldap --rotated-username app1 --user-attribute uid \\",
            "    --authentication-credentials use-target-creds",
        ],
        "target-create-bmc" => &[
            "volvelle target create bmc -n /rack1/bmc7 --host 192.0.2.7 --username volvelle --password \\",
            "    --certificate @bmc7.pem",
            "volvelle target create bmc -n /rack1/bmc8 --host 192.0.2.8 --protocol ipmi --username volvelle --password",
        ],
        "rotated-secret-create-bmc" => &[
            "volvelle rotated-secret create bmc -n /rack1/bmc7/admin --target-name /rack1/bmc7 \\",
            "    --rotator-type password --rotated-username admin --authentication-credentials use-target-creds",
        ],
        "target-create-windows" => &[
            "volvelle target create windows -n /prod/win1 --hostname win1 --username Administrator --password",
            "volvelle target create windows -n /prod/corp --hostname dc1.corp.example --port 636 \\",
            "    --domain corp.example --username rotator --password --certificate @ca.pem",
            "volvelle target create windows -n /prod/web1 --hostname web1 \\",
            "    --connection-type parent-target --parent-target-name /prod/corp",
        ],
        "rotated-secret-create-windows" => &[
            "volvelle rotated-secret create windows -n /prod/svc-web --target-name /prod/corp \\",
            "    --rotator-type password --rotated-username svc-web \\",
            "    --authentication-credentials use-target-creds --services 'W3Worker@web1,W3Worker@web2'",
        ],
        "rotated-secret-get-value" => &[
            "volvelle rotated-secret get-value -n /prod/web1-root",
            "volvelle rotated-secret get-value -n /prod/web1-root --jsonpath '$.value.password'",
        ],
        "gateway-rotate-secret" => &[
            "volvelle rotated-secret rotate -n /prod/web1-root",
            "volvelle rotated-secret rotate --path '/prod/*' --at-once 4 --max-failures 1",
        ],
        "rotated-secret-repair" => &[
            "volvelle rotated-secret repair -n /prod/web1-root",
            "volvelle rotated-secret repair -n /prod/web1-root --rotated-password",
        ],
        "create-secret" => &["volvelle secret create -n /app/key --value @key.txt"],
        "set-role-rule" => &["volvelle role set-rule -r /ops -p '/prod/*' -c read -c list"],
        "assoc-role-am" => &["volvelle role assoc -r /ops -a /ci --sub-claims groups=admins,developers"],
        "auth-method-create-api-key" => &["volvelle auth-method create api-key -n /ci --bound-ips 10.0.0.0/8"],
        "audit-list" => &["volvelle audit list --object /prod/web1-root --limit 20"],
        _ => &[],
    }
}
