#!/bin/bash
# FRRouting's zebra with its terminal over telnet, in its own namespaces.
# usage (as the child of unshare): zebra.sh ADDRESS DIR PASSWORD-FIELD ENABLE-FIELD. Standard input closing ends it.
set -e
address=$1 dir=$2
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/frr
mount -t tmpfs tmpfs /etc/frr
mount -t tmpfs tmpfs /run/frr
cat >/etc/frr/zebra.conf <<EOF
hostname r1
service password-encryption
password 8 $3
enable password 8 $4
EOF
chown -R frr:frr /etc/frr /run/frr
chmod 755 /etc/frr
/usr/lib/frr/zebra -r -A "$address" -P 2601 >"$dir/log" 2>&1 </dev/null &
# The kernel writes an address in hexadecimal, last byte first.
IFS=. read -r a b c d <<<"$address"
listening=$(printf '%02X%02X%02X%02X:0A29' "$d" "$c" "$b" "$a")
for _ in $(seq 200); do
  grep -q "$listening" /proc/net/tcp && break
  sleep 0.05
done
grep -q "$listening" /proc/net/tcp || { cat "$dir/log" >&2; exit 1; }
echo ready
cat >/dev/null
