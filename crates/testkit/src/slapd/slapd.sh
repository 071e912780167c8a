#!/bin/bash
# One throw-away directory: slapd with a certificate authority of its own, as PID 1 of its own namespaces.
# usage (as the child of unshare): slapd.sh ADDRESS DIR, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
mkdir data tls
base=dc=example,dc=org

# An authority and a certificate that names the address, and another authority that signed nothing.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" -keyout tls/ca.key -out tls/ca.pem 2>tls/log
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Another authority" -keyout tls/other.key -out tls/other.pem 2>>tls/log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=ldap.example.org" -keyout tls/key.pem -out tls/csr.pem 2>>tls/log
printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:ldap.example.org\n' "$address" >tls/ext
openssl x509 -req -in tls/csr.pem -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 30 -extfile tls/ext -out tls/cert.pem 2>>tls/log

cat >slapd.conf <<EOF
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile $dir/pid
TLSCACertificateFile $dir/tls/ca.pem
TLSCertificateFile $dir/tls/cert.pem
TLSCertificateKeyFile $dir/tls/key.pem
password-hash {SSHA}
database mdb
maxsize 16777216
suffix $base
rootdn cn=admin,$base
rootpw $PASSWORD
directory $dir/data
# What docs/targets/ldap.md tells people to write, and one more service that only writes.
$RULES
overlay ppolicy
ppolicy_default cn=default,ou=policies,$base
ppolicy_hash_cleartext
ppolicy_use_lockout
EOF
hash=$(slappasswd -h '{SSHA}' -s "$PASSWORD")
{
  printf 'dn: %s\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n' "$base"
  for unit in people services policies; do printf 'dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %s\n\n' $unit "$base" $unit; done
  for user in app1 app2 app3; do
    printf 'dn: uid=%s,ou=people,%s\nobjectClass: inetOrgPerson\nuid: %s\ncn: %s\nsn: %s\nuserPassword: %s\n' $user "$base" $user $user $user "$hash"
    [ $user != app3 ] || printf 'pwdPolicySubentry: cn=safe,ou=policies,%s\n' "$base"
    echo
  done
  for service in rotator blind weak; do
    printf 'dn: cn=%s,ou=services,%s\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: %s\nuserPassword: %s\n\n' $service "$base" $service "$hash"
  done
  printf 'dn: cn=default,ou=policies,%s\nobjectClass: device\nobjectClass: pwdPolicy\ncn: default\npwdAttribute: userPassword\npwdMinLength: 12\npwdCheckQuality: 2\npwdInHistory: 3\npwdLockout: TRUE\npwdMaxFailure: 3\npwdMustChange: TRUE\npwdAllowUserChange: TRUE\npwdSafeModify: FALSE\n\n' "$base"
  # Only with the old password, which also tells that both were sent.
  printf 'dn: cn=safe,ou=policies,%s\nobjectClass: device\nobjectClass: pwdPolicy\ncn: safe\npwdAttribute: userPassword\npwdMinLength: 12\npwdCheckQuality: 2\npwdAllowUserChange: TRUE\npwdSafeModify: TRUE\n\n' "$base"
} >init.ldif
slapadd -f slapd.conf -l init.ldif >slapadd.log 2>&1 || { cat slapadd.log >&2; exit 1; }
unset PASSWORD
slapd -f slapd.conf -h "ldap://$address:389 ldaps://$address:636" -d stats >slapd.log 2>&1 </dev/null &
server=$!
for _ in $(seq 400); do
  kill -0 $server 2>/dev/null || { cat slapd.log >&2; exit 1; }
  if ldapsearch -x -H "ldap://$address" -b '' -s base >/dev/null 2>&1; then echo ready; break; fi
  sleep 0.02
done
while read -r _; do :; done
