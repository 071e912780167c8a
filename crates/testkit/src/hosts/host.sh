#!/bin/bash
# One throw-away host: PID 1 of its own mount, PID, UTS and IPC namespaces.
# usage (as the child of unshare): host.sh KIND ADDRESS NAME DIR, with PASSWORD and AUTHORIZED_KEY in the environment.
# Everything of the machine is visible, every write lands in a tmpfs, and standard input closing ends the host.
set -e
kind=$1 address=$2 name=$3 dir=$4
password=$PASSWORD key=$AUTHORIZED_KEY
unset PASSWORD AUTHORIZED_KEY

mount --make-rprivate /
mount -t tmpfs -o size=256m,mode=755 tmpfs "$dir"
mkdir -p "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
mkdir -p dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p tmp/old run/sshd run/lock
pivot_root . tmp/old
cd /
umount -l /tmp/old && rmdir /tmp/old
hostname "$name"
echo "127.0.0.1 localhost $name" > /etc/hosts

# Accounts: written directly, which is many times faster than five calls of useradd.
sed -i -E '/^(ops|rot|app1|app2):/d' /etc/passwd /etc/shadow /etc/group /etc/gshadow
uid=2001
for user in ops rot app1 app2; do
  echo "$user:x:$uid:$uid::/home/$user:/bin/bash" >> /etc/passwd
  echo "$user:x:$uid:" >> /etc/group
  echo "$user:!:19700:0:99999:7:::" >> /etc/shadow
  rm -rf "/home/$user"; install -d -m 0755 -o $uid -g $uid "/home/$user"
  uid=$((uid + 1))
done
sed -i -E 's|^root:[^:]*:[^:]*:|root:!:19700:|; s|^(root:.*:)[^:]*$|\1|' /etc/shadow
sed -i -E 's|^root:([^:]*:){5}.*|root:x:0:0:root:/root:/bin/bash|' /etc/passwd
mount -t tmpfs -o mode=700 tmpfs /root
for user in root ops rot app1 app2; do
  home=$(getent passwd $user | cut -d: -f6)
  install -d -m 0700 -o $user -g $user "$home/.ssh"
  [ -z "$key" ] || { echo "$key" > "$home/.ssh/authorized_keys"; chown $user:$user "$home/.ssh/authorized_keys"; chmod 600 "$home/.ssh/authorized_keys"; }
done
mkdir -p /etc/sudoers.d
rm -f /etc/sudoers.d/*
printf 'Defaults !lecture\nops ALL=(ALL:ALL) ALL\nrot ALL=(ALL:ALL) NOPASSWD: ALL\n' > /etc/sudoers.d/accounts
chmod 440 /etc/sudoers.d/accounts

# PAM starts plain, so that the first passwords meet no policy; each kind adds its own below.
pam_auth='auth [success=1 default=ignore] pam_unix.so nullok'
pam_password='password [success=1 default=ignore] pam_unix.so obscure yescrypt'
pam_tail() { printf '%s requisite pam_deny.so\n%s required pam_permit.so\n' "$1" "$1"; }
printf '%s\n%s\n' "$pam_password" "$(pam_tail password)" > /etc/pam.d/common-password
printf '%s\n%s\n' "$pam_auth" "$(pam_tail auth)" > /etc/pam.d/common-auth
printf 'account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n%s\n' "$(pam_tail account)" > /etc/pam.d/common-account
printf 'session required pam_unix.so\n' | tee /etc/pam.d/common-session > /etc/pam.d/common-session-noninteractive
for user in root ops rot app1 app2; do echo "$user:$password"; done | chpasswd
install -m 600 /dev/null /etc/security/opasswd

cat > /etc/ssh/sshd_config <<CONFIG
Port 22
ListenAddress $address
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_rsa_key
UsePAM yes
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication yes
StrictModes yes
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 400:30:800
MaxAuthTries 6
Subsystem sftp internal-sftp
CONFIG
rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/*
ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
if [ "$kind" = legacy ]; then
  ssh-keygen -q -t rsa -b 2048 -N '' -C '' -f /etc/ssh/ssh_host_rsa_key
else
  sed -i '/ssh_host_rsa_key/d' /etc/ssh/sshd_config
fi
server=sshd

case $kind in
  debian) ;;
  strict)
    printf '%s\n' 'password requisite pam_pwquality.so retry=1 minlen=14 dcredit=-1 ucredit=-1 ocredit=-1 lcredit=-1 enforce_for_root' \
      'password required pam_pwhistory.so remember=5 enforce_for_root use_authtok retry=1' \
      'password [success=1 default=ignore] pam_unix.so use_authtok try_first_pass yescrypt' \
      "$(pam_tail password)" > /etc/pam.d/common-password ;;
  expired-force) for user in app1 app2; do chage -d 0 $user; done ;;
  sudo) sed -i 's/^PermitRootLogin.*/PermitRootLogin no/' /etc/ssh/sshd_config ;;
  key-only) sed -i 's/^PasswordAuthentication.*/PasswordAuthentication no/; s/^KbdInteractive.*/KbdInteractiveAuthentication no/' /etc/ssh/sshd_config ;;
  dropbear)
    server=dropbear
    mkdir -p /etc/dropbear; rm -f /etc/dropbear/*
    dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key >/dev/null 2>&1
    dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep '^ssh-' > /etc/ssh/ssh_host_ed25519_key.pub ;;
  tinyssh)
    server=tinyssh
    rm -rf /etc/tinyssh/keys; mkdir -p /etc/tinyssh
    tinysshd-makekey -q /etc/tinyssh/keys
    tinysshd-printkey /etc/tinyssh/keys 2>/dev/null | grep '^ssh-ed25519' > /etc/ssh/ssh_host_ed25519_key.pub || true ;;
  busybox)
    install -m 4755 /bin/busybox /usr/bin/passwd
    rm -f /usr/sbin/chpasswd /usr/sbin/usermod /usr/bin/chage /usr/bin/getent
    ln -sf busybox /bin/sh
    sed -i 's|/bin/bash$|/bin/sh|' /etc/passwd ;;
  legacy)
    printf '%s\n' 'KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1' 'HostKeyAlgorithms ssh-rsa' \
      'PubkeyAcceptedAlgorithms ssh-rsa' 'Ciphers aes128-cbc,3des-cbc' 'MACs hmac-sha1,hmac-md5' >> /etc/ssh/sshd_config
    sed -i '/ssh_host_ed25519_key/d' /etc/ssh/sshd_config ;;
  faillock)
    mkdir -p /run/faillock
    printf '%s\n' 'auth required pam_faillock.so preauth deny=3 even_deny_root unlock_time=0 root_unlock_time=0' \
      'auth sufficient pam_unix.so' \
      'auth [default=die] pam_faillock.so authfail deny=3 even_deny_root unlock_time=0 root_unlock_time=0' \
      'auth required pam_deny.so' > /etc/pam.d/common-auth
    sed -i '1i account required pam_faillock.so' /etc/pam.d/common-account ;;
  *) echo "unknown kind $kind" >&2; exit 2 ;;
esac

case $server in
  sshd) /usr/sbin/sshd -D -e </dev/null >/var/log/host-sshd.log 2>&1 & ;;
  dropbear) dropbear -F -E -r /etc/dropbear/dropbear_ed25519_host_key -p "$address:22" </dev/null >/var/log/host-sshd.log 2>&1 & ;;
  tinyssh)
    # tinysshd serves one connection on standard input; perl-base listens for it.
    perl -MSocket -e '
      my $address = shift; $SIG{CHLD} = "IGNORE";
      socket(my $l, PF_INET, SOCK_STREAM, 0) or die; setsockopt($l, SOL_SOCKET, SO_REUSEADDR, 1);
      bind($l, pack_sockaddr_in(22, inet_aton($address))) or die "bind: $!"; listen($l, 64) or die;
      while (1) {
        accept(my $c, $l) or next;
        if (fork() == 0) { $SIG{CHLD} = "DEFAULT"; open(STDIN, "<&", $c); open(STDOUT, ">&", $c); close $l; exec "tinysshd", "-v", "/etc/tinyssh/keys" or die; }
        close $c;
      }' "$address" </dev/null >/var/log/host-sshd.log 2>&1 & ;;
esac
echo ready
# As PID 1: wait until the test is gone; bash reaps orphans meanwhile.
set +e
while read -r _; do :; done
exit 0
