# What a run does without IPv6 and Landlock (so the kernel was booted), nf_tables, the
# modules of iptables, TAP devices, and user namespaces, one after the other.
. /guest/lib.sh
hide=/etc/modprobe.d/hide.conf
mkdir -p /etc/modprobe.d
printf 'install %s /bin/false\n' nf_tables nft_compat >$hide
world
for program in iptables ip6tables; do
	ln -sf xtables-legacy-multi /usr/sbin/$program
	ln -sf xtables-legacy-multi /usr/sbin/$program-restore
done

# seen NAME WANT OPTION... checks what a UDP server sees, and that TCP goes on.
seen() {
	local name=$1 want=$2
	shift 2
	start "$name" --net=gvisor-tap-vsock "$@" --disable-host-loopback --port-driver=builtin $both $peer serve 80
	check "$name-udp" "peer=$want:*" "$(client $peer who udp 10.93.0.1:8080)"
	check "$name-tcp" 'peer=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
}

### No packet filter: UDP servers see the namespace, and the log says how to mend that
seen no-filter '10.0.2.100' --copy-up=/etc
check no-filter-said '*modprobe -a ip_tables iptable_mangle*' "$(cat $err)"
stop
check no-filter-check '*fix: sudo modprobe nf_tables; or install iptables and sudo modprobe -a ip_tables*' "$(run --check)"

### iptables of the older kind, once the host's root has loaded its modules
if modprobe -a ip_tables iptable_mangle 2>/dev/null; then
	modprobe -a ip6_tables ip6table_mangle 2>/dev/null
	seen iptables '10.93.0.2' --copy-up=/etc
	stop
	check iptables-check '*ok *nf_tables: *iptables works*' "$(run --check)"
else
	echo 'INFO iptables: this kernel has none of the older kind'
fi

### No IPv6
check no-ipv6 1 "$([ -z "$v6" ] && echo 1)"
check no-ipv6-network '*--ipv6: the kernel has no IPv6*' "$(run --net=gvisor-tap-vsock --copy-up=/etc --ipv6 --disable-host-loopback echo ran)"
check no-ipv6-check '*--ipv6: the kernel has no IPv6*' "$(run --net=gvisor-tap-vsock --ipv6 --check)"
check no-ipv6-port '*address family not supported*' "$(run --net=none --port-driver=builtin -p '[::]:8080:80/tcp6' true)"
check all-addresses ran "$(run --net=none --port-driver=builtin -p '[::]:8080:80/tcp' echo ran)"

### No Landlock
start no-landlock $gvisor --port-driver=bypass4netns --disable-host-loopback $tcp $peer serve 80
check no-landlock-port 'peer=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
check no-landlock-said '*not native*' "$(cat $err)"
stop

### No TAP devices
rm /dev/net/tun
check no-tun '*/dev/net/tun*' "$(run $gvisor true)"
check no-tun-check '*fix: sudo modprobe tun*' "$(run --net=gvisor-tap-vsock --check)"
check no-tun-auto '*/dev/net/tun*' "$(run --net=auto --copy-up=/etc echo ran)"

### No user namespaces
sysctl -qw user.max_user_namespaces=0
check no-userns '*user.max_user_namespaces*' "$(run true)"
check no-userns-check '*fix: *user.max_user_namespaces=*' "$(run --check)"
kill $world
