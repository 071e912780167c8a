#!/bin/bash
# One throw-away Samba server with accounts of its own, as PID 1 of its own namespaces: what SAMR says of a Windows host's local accounts.
# usage (as the child of unshare): standalone.sh ADDRESS DIR, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs "$dir"
cd "$dir"
for private in /run/samba /var/log/samba; do mkdir -p $private; mount -t tmpfs tmpfs $private; done
mkdir private state cache lock run ncalrpc up work
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$dir/up,workdir=$dir/work" /etc
uid=3001
for user in app1 app2 app3 weak; do
  sed -i "/^$user:/d" /etc/passwd
  echo "$user:x:$uid:65534::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
  uid=$((uid + 1))
done
echo 'root = Administrator' >users.map
cat >smb.conf <<EOF
[global]
  netbios name = WIN1
  workgroup = WORKGROUP
  server role = standalone server
  passdb backend = tdbsam
  username map = $dir/users.map
  map to guest = never
  server min protocol = SMB2
  bind interfaces only = yes
  interfaces = $address/8
  disable netbios = yes
  smb ports = 445
  private dir = $dir/private
  state directory = $dir/state
  cache directory = $dir/cache
  lock directory = $dir/lock
  pid directory = $dir/run
  ncalrpc dir = $dir/ncalrpc
  log file = $dir/log.%m
  load printers = no
EOF
for user in root app1 app2 app3 weak; do printf '%s\n%s\n' "$PASSWORD" "$PASSWORD" | smbpasswd -c smb.conf -L -s -a $user >>setup.log 2>&1; done
pdbedit -s smb.conf -P "min password length" -C 10 >>setup.log 2>&1
pdbedit -s smb.conf -P "bad lockout attempt" -C 4 >>setup.log 2>&1
unset PASSWORD
smbd -F --no-process-group -s "$dir/smb.conf" --debug-stdout </dev/null >smbd.log 2>&1 &
server=$!
for _ in $(seq 400); do
  kill -0 $server 2>/dev/null || { tail -n 20 smbd.log >&2; exit 1; }
  if (exec 3<>"/dev/tcp/$address/445") 2>/dev/null; then echo ready; break; fi
  sleep 0.02
done
while read -r _; do :; done
