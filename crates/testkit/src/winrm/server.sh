#!/bin/bash
# One simulated Windows host, as PID 1 of its own namespaces.
# usage (as the child of unshare): server.sh ADDRESS DIR PYTHON HOST OPENSSH SERVER, the last three being programs, with PASSWORD in the environment and
# in KEYTAB the keys of the host in its domain, if it has one. Standard input closing ends it.
set -e
address=$1 dir=$2 python=$3
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
printf %s "$4" >host.py
printf %s "$5" >openssh.py
printf %s "$6" >server.py
mkdir tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" -keyout tls/ca.key -out tls/ca.pem 2>tls/log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=win1" -keyout tls/key.pem -out tls/csr.pem 2>>tls/log
printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:win1\n' "$address" >tls/ext
openssl x509 -req -in tls/csr.pem -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 30 -extfile tls/ext -out tls/cert.pem 2>>tls/log
printf '[libdefaults]\n  default_realm = CORP.TEST\n  dns_lookup_kdc = false\n  dns_canonicalize_hostname = false\n  rdns = false\n' >krb5.conf
export KRB5_CONFIG=$dir/krb5.conf KRB5_KTNAME=$dir/keytab
if [ -n "$KEYTAB" ]; then "$python" -c 'import os; open("keytab", "wb").write(bytes.fromhex(os.environ["KEYTAB"]))'; fi
unset KEYTAB
exec "$python" server.py "$address" "$dir"
