# What a run does on this kernel, with all that the kernel has.
. /guest/lib.sh
world
run --net=none $peer features

### Processes, ids, mounts
same id '0 ' id -u
same id-map '* 0 1000 1 1 100000 65536 *' sh -c 'echo " " $(cat /proc/self/uid_map)'
check host-check 0 "$(run --check >$tmp/check.out; echo $?)"
grep -E '^[a-z]+ +(kernel|nf_tables|tun|user-namespaces):' $tmp/check.out | sed 's/^/INFO check: /'
same namespaces 'guest2 root-of-cgroups ' --pidns --cgroupns --utsns --ipcns sh -c \
	'hostname guest2; hostname; [ $$ -lt 60 ] && grep -q "^0::/$" /proc/self/cgroup && echo root-of-cgroups'
for reaper in true false auto; do
	same reaper-$reaper '7 ' --pidns --reaper=$reaper sh -c '(sleep 0.1 &); echo 7'
done
same copy-up 'xyz ' --copy-up=/etc --copy-up=/run sh -c \
	'echo x >/etc/new && echo y >/run/new && rm /etc/resolv.conf && echo z >/etc/resolv.conf && cat /etc/new /run/new /etc/resolv.conf | tr -d "\n"; echo'
same propagation 'ok ' --propagation=rslave sh -c 'mount -t tmpfs none /mnt && echo ok'
check exit-code '*42' "$(run sh -c 'exit 42'; echo $?)"
check exit-not-found '*1' "$(run /nosuch; echo $?)"
check exit-signalled '*255' "$(run sh -c 'kill -TERM $$'; echo $?)"
check stdio abc "$(echo abc | run --pidns cat)"
start signal --pidns sh -c 'trap "echo got it; exit 9" TERM; echo ready; while :; do sleep 0.1; done'
stop
check signal-forwarded '9 *got it*' "$? $(cat $tmp/signal.out)"

### Ports
# ports NAME SOURCE4 SOURCE6 OPTION...: what the server sees of a TCP client is always its
# address; SOURCE is what it sees of a UDP client.
ports() {
	local name=$1 udp4=$2 udp6=$3
	shift 3
	start "$name" "$@" $both $peer serve 80
	check "$name-udp" "peer=$udp4:* me=10.93.0.2:*" "$(client $peer who udp 10.93.0.1:8080)"
	check "$name-tcp" 'peer=10.93.0.2:* me=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
	check "$name-local" 'peer=*' "$(here $peer who tcp 127.0.0.1:8080)"
	check "$name-bulk" 'ok 8 MB*' "$(client $peer bulk 10.93.0.1:8080 8)"
	check "$name-udp-bulk" 'ok @(19?|200) *' "$(client $peer udpbulk 10.93.0.1:8080 200)"
	if [ -n "$v6" ] && [ "$udp6" != none ]; then
		ctl add-ports '[::]:8086:80/tcp' '[::]:8086:80/udp' >/dev/null
		check "$name-tcp6" 'peer=?fd93::2]:* me=?fd93::2]:*' "$(client $peer who tcp '[fd93::1]:8086')"
		check "$name-udp6" "peer=$udp6:* me=?fd93::2]:*" "$(client $peer who udp '[fd93::1]:8086')"
	fi
	said "$name"
}
# Without a network there is no route that a UDP server's answers could take.
ports none+builtin 192.0.0.8 '?100:0:0:1::8]' --net=none --port-driver=builtin
check rest-list '*8080*80*' "$(ctl list-ports)"
check rest-info '*builtin*' "$(ctl info)"
check rest-add '[0-9]*' "$(ctl add-ports 127.0.0.1:8088:80/tcp)"
check rest-added 'peer=*' "$(here $peer who tcp 127.0.0.1:8088)"
stop
check stop-cleans '0 0' "$(pgrep -u penguin | wc -l) $(ls $state 2>/dev/null | wc -l)"
ports gvisor+builtin 10.93.0.2 '?fd93::2]' $gvisor --disable-host-loopback ${v6:+--ipv6} --port-driver=builtin

### Outbound, of the same run
check outbound-dns '?10.93.0.2?*' "$(inside $peer lookup www.example.test)"
check outbound-tcp 'peer=10.93.0.1:*' "$(inside $peer who tcp 10.93.0.2:9000)"
check outbound-udp 'peer=10.93.0.1:*' "$(inside $peer who udp 10.93.0.2:9000)"
check outbound-bulk 'ok 8 MB*' "$(inside $peer bulk 10.93.0.2:9000 8)"
[ -z "$v6" ] || check outbound-tcp6 'peer=?fd93::1]:*' "$(inside $peer who tcp '[fd93::2]:9000')"
check outbound-ping '* 0% packet loss*' "$(inside ping -c 2 -W 10 10.93.0.2)"
stop
ports gvisor+gvisor 10.93.0.2 none $gvisor --port-driver=gvisor-tap-vsock
stop

### Native ports, or the relay with the reason
for isolated in '' --disable-host-loopback; do
	name=native${isolated:+-isolated}
	start $name $gvisor --port-driver=bypass4netns $isolated $tcp $peer serve 80
	check $name-source 'peer=10.93.0.2:* me=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
	check $name-bulk 'ok 8 MB*' "$(client $peer bulk 10.93.0.1:8080 8)"
	check $name-outbound 'peer=10.93.0.1:*' "$(inside $peer who tcp 10.93.0.2:9000)"
	how=$(ctl list-ports --wide | grep -o -E 'native|relay' | head -n 1)
	check $name-said '@(native 0|relay 1)' "$how $(grep -c 'not native' $err)"
	echo "FEATURE native ports${isolated:+ with \`$isolated\`}: ${how/native/yes}"
	said $name
	stop
done

### --detach-netns; death, and a new life
start detach $gvisor --detach-netns --port-driver=builtin $tcp sh -c "exec nsenter --net=\$ROOTLESSKIT_STATE_DIR/netns $peer serve 80"
check detach-source 'peer=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
kill -9 "$job"
poll 300 idle
wait "$job" 2>/dev/null
check killed-leaves-nothing '0 0' "$(pgrep -u penguin | wc -l) $(grep -c $state /proc/self/mountinfo)"
start restart $gvisor --port-driver=builtin $tcp $peer serve 80
check killed-restart 'peer=10.93.0.2:*' "$(client $peer who tcp 10.93.0.1:8080)"
stop
group=/sys/fs/cgroup/penguin
mkdir -p $group/run
chown 1000 $group{,/run}{,/cgroup.procs,/cgroup.subtree_control}
check evacuate '*0::/evac' "$(echo $BASHPID >$group/run/cgroup.procs; run --pidns --cgroupns --evacuate-cgroup2=evac grep 0:: /proc/self/cgroup)"
check nothing-left 0 "$(pgrep -u penguin | wc -l)"
kill $world
