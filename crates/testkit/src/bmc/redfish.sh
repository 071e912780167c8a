#!/bin/bash
# One simulated Redfish service, as PID 1 of its own namespaces.
# usage (as the child of unshare): redfish.sh ADDRESS DIR PROGRAM, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2 program=$3
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
mkdir tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" -keyout tls/ca.key -out tls/ca.pem 2>tls/log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=bmc1" -keyout tls/key.pem -out tls/csr.pem 2>>tls/log
printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:bmc1\n' "$address" >tls/ext
openssl x509 -req -in tls/csr.pem -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 30 -extfile tls/ext -out tls/cert.pem 2>>tls/log
printf %s "$program" >redfish.py
exec python3 redfish.py "$address" "$dir"
