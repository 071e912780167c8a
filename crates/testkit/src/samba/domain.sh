#!/bin/bash
# One throw-away Active Directory domain controller (Samba), as PID 1 of its own namespaces.
# usage (as the child of unshare): domain.sh ADDRESS DIR CACHE, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2 cache=$3
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs "$dir"
cd "$dir"
for private in /run/samba /var/log/samba; do mkdir -p $private; mount -t tmpfs tmpfs $private; done
mkdir etc private state cache lock run ncalrpc tls

write_config() {
  cat >etc/smb.conf <<EOF
[global]
  netbios name = DC1
  realm = CORP.TEST
  workgroup = CORP
  server role = active directory domain controller
  bind interfaces only = yes
  interfaces = $address/8
  private dir = $dir/private
  state directory = $dir/state
  cache directory = $dir/cache
  lock directory = $dir/lock
  pid directory = $dir/run
  ncalrpc dir = $dir/ncalrpc
  winbindd socket directory = /run/samba/winbindd
  ntp signd socket directory = $dir/run
  log file = $dir/log.%m
  server services = s3fs, rpc, ldap, cldap, kdc, winbindd, kcc
  dcerpc endpoint servers = epmapper, wkssvc, samr, netlogon, lsarpc, drsuapi, dssetup, unixinfo, browser, eventlog6, backupkey, dnsserver
  prefork children = 1
  tls enabled = yes
  tls keyfile = $dir/tls/key.pem
  tls certfile = $dir/tls/cert.pem
  tls cafile = $dir/tls/ca.pem
  server min protocol = SMB2
[sysvol]
  path = $dir/state/sysvol
  read only = no
[netlogon]
  path = $dir/state/sysvol/corp.test/scripts
  read only = no
EOF
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" -keyout tls/ca.key -out tls/ca.pem 2>tls/log
openssl req -newkey rsa:2048 -nodes -subj "/CN=dc1.corp.test" -keyout tls/key.pem -out tls/csr.pem 2>>tls/log
printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:dc1.corp.test\n' "$address" >tls/ext
openssl x509 -req -in tls/csr.pem -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 30 -extfile tls/ext -out tls/cert.pem 2>>tls/log
chmod 600 tls/key.pem
cat >etc/krb5.conf <<EOF
[libdefaults]
  default_realm = CORP.TEST
  dns_lookup_kdc = false
  dns_lookup_realm = false
  udp_preference_limit = 1
[realms]
  CORP.TEST = {
    kdc = $address
    admin_server = $address
    kpasswd_server = $address
  }
EOF
export KRB5_CONFIG=$dir/etc/krb5.conf

# Provisioning takes seconds: the outcome is kept, and used again by whoever comes later on this machine.
provision() {
  mkdir -p provision
  samba-tool domain provision --realm=CORP.TEST --domain=CORP --server-role=dc --dns-backend=NONE --host-name=dc1 --host-ip="$address" \
    --adminpass="$PASSWORD" --targetdir="$dir/provision" --option="interfaces=$address/8" --option="bind interfaces only=yes" \
    --option="dcerpc endpoint servers=epmapper,wkssvc,samr,netlogon,lsarpc,drsuapi,dssetup,unixinfo,browser,eventlog6,backupkey,dnsserver" \
    >provision.log 2>&1 || { tail -n 20 provision.log >&2; exit 1; }
  rm -rf private state cache
  mv provision/private private; mv provision/state state
  mkdir -p cache
  write_config
  tool() { samba-tool "$@" -s "$dir/etc/smb.conf" >>provision.log 2>&1 || { tail -n 5 provision.log >&2; exit 1; }; }
  tool domain passwordsettings set --min-pwd-age=0 --account-lockout-threshold=5
  for user in app1 app2 app3 rot weak; do tool user create $user "$PASSWORD"; done
  tool group addmembers "Domain Admins" rot
  tar cf "$cache.$$" private state && mv "$cache.$$" "$cache"
}
exec 9>"$cache.lock"
flock 9
if [ -s "$cache" ]; then rm -rf private state; tar xf "$cache"; write_config; else provision; fi
exec 9>&-
unset PASSWORD
samba -s "$dir/etc/smb.conf" -i --no-process-group --debug-stdout </dev/null >samba.log 2>&1 &
server=$!
for _ in $(seq 600); do
  kill -0 $server 2>/dev/null || { tail -n 40 samba.log >&2; exit 1; }
  if (exec 3<>"/dev/tcp/$address/636" 4<>"/dev/tcp/$address/88" 5<>"/dev/tcp/$address/445") 2>/dev/null; then echo ready; break; fi
  sleep 0.05
done
while read -r line; do eval "$line"; echo "done $?"; done
