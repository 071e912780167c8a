#!/bin/bash
# One simulated Windows host, as PID 1 of its own namespaces.
# usage (as the child of unshare): server.sh ADDRESS DIR PYTHON PROGRAM, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2 python=$3 program=$4
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
mkdir tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" -keyout tls/ca.key -out tls/ca.pem 2>tls/log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=win1" -keyout tls/key.pem -out tls/csr.pem 2>>tls/log
printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:win1\n' "$address" >tls/ext
openssl x509 -req -in tls/csr.pem -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 30 -extfile tls/ext -out tls/cert.pem 2>>tls/log
printf %s "$program" >server.py
exec "$python" server.py "$address" "$dir"
