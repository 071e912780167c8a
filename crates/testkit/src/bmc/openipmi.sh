#!/bin/bash
# One BMC over IPMI 2.0: OpenIPMI's own simulator, as PID 1's child in its own namespaces.
# usage (as the child of unshare): openipmi.sh ADDRESS DIR, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
mkdir state
cat >lan.conf <<EOF
name "bmc"
set_working_mc 0x20
  startlan 1
    addr $address 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  user 1 false "" "none" user 10 none md2 md5 straight
  user 2 true "admin" "$PASSWORD" admin 10 none md2 md5 straight
  user 3 true "app1" "$PASSWORD" admin 10 none md2 md5 straight
  user 4 true "ops" "$PASSWORD" user 10 none md2 md5 straight
  user 5 false "off" "$PASSWORD" admin 10 none md2 md5 straight
EOF
cat >sim.emu <<EOF
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
EOF
ipmi_sim -n -c lan.conf -f sim.emu -s state >log 2>&1 </dev/null &
# The kernel writes an address in hexadecimal, last byte first.
IFS=. read -r a b c d <<<"$address"
listening=$(printf '%02X%02X%02X%02X:026F' "$d" "$c" "$b" "$a")
for _ in $(seq 100); do
  grep -q "$listening" /proc/net/udp && break
  sleep 0.05
done
grep -q "$listening" /proc/net/udp || { cat log >&2; exit 1; }
echo ready
cat >/dev/null
