# shellcheck shell=bash
# What happens to ports in the life of containers. To be sourced.

lan_sees() { sees "$1" own $LAN4 lan tcp "${2:-10.77.0.1:8080}"; }

check_networks() {
	up 'two networks' --network one,two -p 8080:80 || return
	OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080) # either
	lan_sees 'two networks: seen'
	check reload reload
	check disconnect pod_quiet network disconnect one web
	OWN_ADDRESS=$(own_address web)
	lan_sees 'disconnected: seen'
	sees 'disconnected: loopback' own own host tcp 127.0.0.1:8080
	check connect pod_quiet network connect one web
	# Podman's own helper may lose the port here.
	[ "$SETUP" = own ] || lan_sees 'connected: seen'
	check restart pod_quiet restart -t 0 web
	OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080)
	lan_sees 'restarted: seen'
	check stop pod_quiet stop -t 0 web
	sees 'stopped' none none lan tcp 10.77.0.1:8080
	check 'start again' pod_quiet start web
	OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080)
	lan_sees 'started: seen'
	drop web
}

# reload has a connection and 300 more survive podman network reload. Podman's own
# helper closes the ports for a moment.
reload() {
	local many=/tmp/many hold=/tmp/hold holder asker
	rm -f "$many" "$hold" /tmp/again
	ip netns exec lan "$PEER" hold 10.77.0.1:8080 /tmp/again >"$hold" 2>/dev/null &
	holder=$!
	wait_for 10 'an answer' test -s "$hold"
	ip netns exec lan "$PEER" many 300 10.77.0.1:8080 >"$many" 2>/dev/null &
	asker=$!
	for _ in 1 2 3; do
		pod_quiet network reload web || return
	done
	wait "$asker"
	touch /tmp/again
	wait_for 10 'an answer over the connection from before' has_lines 2 "$hold"
	kill "$holder" 2>/dev/null
	wait "$holder" 2>/dev/null
	echo "$(cat "$many"), $(wc -l <"$hold") answers over the connection from before"
	[ "$SETUP" = own ] || { grep -q '^300/300' "$many" && [ "$(wc -l <"$hold")" -eq 2 ]; }
}

has_lines() { [ "$(wc -l <"$2")" -ge "$1" ]; }

check_addresses() {
	if up 'one address' --network one -p 127.0.0.1:8080:80 -p 10.77.0.9:8081:80; then
		sees 'on 127.0.0.1 alone, from the LAN' none none lan tcp 10.77.0.1:8080
		sees 'on 127.0.0.1 alone, from the host' own own host tcp 127.0.0.1:8080
		lan_sees 'on a second address' 10.77.0.9:8081
		sees 'on a second address, at the first' none none lan tcp 10.77.0.1:8081
		drop web
	fi
	if check 'a range' pod_quiet run -d --name web --network one -p 8080-8089:80-89 peer /bin/peer serve :80 :85 :89; then
		OWN_ADDRESS=$(own_address web)
		lan_sees 'a range: its last' 10.77.0.1:8089
		sees 'a range: nobody there' none none lan tcp 10.77.0.1:8088
		drop web
	fi
}

check_groups() {
	if check 'a pod' pod_quiet pod create --name both --network one -p 8080:80 -p 8081:81; then
		check 'a pod of two' pod_quiet run -d --pod both --name a peer /bin/peer serve :80
		check 'a pod of two, second' pod_quiet run -d --pod both --name b peer /bin/peer serve :81
		OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080)
		lan_sees 'a pod: first'
		lan_sees 'a pod: second' 10.77.0.1:8081
		pod_quiet pod rm -f -t 0 both
	fi
	cat >"$HOME_DIR/pod.yaml" <<-YAML
		apiVersion: v1
		kind: Pod
		metadata:
		  name: played
		spec:
		  containers:
		  - name: web
		    image: localhost/peer:latest
		    command: [/bin/peer, serve, ":80"]
		    ports:
		    - containerPort: 80
		      hostPort: 8080
	YAML
	if check 'kube play' pod_quiet play kube --network one "$HOME_DIR/pod.yaml"; then
		wait_for 10 'an answer' "$PEER" ask tcp 127.0.0.1:8080
		OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080)
		lan_sees 'kube play: seen'
		pod_quiet play kube --down "$HOME_DIR/pod.yaml"
	fi
}

# says TEXT ARGUMENT... succeeds where podman fails with the text.
says() {
	local text=$1
	shift
	! pod "$@" >/tmp/out 2>&1 || { echo "it succeeded, without: $text"; return 1; }
	grep -F -- "$text" /tmp/out | tail -n 1 | grep . || { tail -n 1 /tmp/out; return 1; }
}

check_refusals() {
	"$PEER" serve :18080 &
	local text taken=$!
	wait_for 10 'the server of the host' "$PEER" ask tcp 127.0.0.1:18080
	check 'a port in use' says 'rootlessport listen tcp 0.0.0.0:18080: bind: address already in use' \
		run --rm --network one -p 18080:80 peer true
	kill "$taken"
	check 'an address of nobody' says 'bind: cannot assign requested address' \
		run --rm --network one -p 192.0.2.7:8080:80 peer true
	check 'a privileged port' says "rootlessport cannot expose privileged port 81, you can add 'net.ipv4.ip_unprivileged_port_start=81' to /etc/sysctl.conf (currently 1024), or choose a larger port number (>= 1024): listen tcp 0.0.0.0:81: bind: permission denied" \
		run --rm --network one -p 81:80 peer true
	text='unsupported port protocol "sctp"'
	[ "$SETUP" = ours ] || text='spec was not validated?'
	check 'sctp is refused' says "$text" run --rm --network one -p 8080:80/sctp peer true
}

check_users() {
	local mode
	for mode in auto keep-id; do
		# Who is no root there may not have a port below 1024.
		check "--userns=$mode" pod_quiet run -d --name web --network one --userns="$mode" -p 8080:8000 peer /bin/peer serve :8000 || { drop web; continue; }
		OWN_ADDRESS=$(own_address web)
		lan_sees "--userns=$mode: seen"
		drop web
	done
	if up '--privileged' --network one --privileged -p 8080:80/udp; then
		sees '--privileged: seen' own $LAN4 lan udp 10.77.0.1:8080
		drop web
	fi
}

check_thousand() {
	local began=$SECONDS
	up '1,000 ports' --network one -p 20000-20999:80-1079 || return
	check '1,000 ports: time' echo "$((SECONDS - began)) s"
	lan_sees '1,000 ports: seen' 10.77.0.1:20000
	drop web
}

# stack is a proxy, an application and a database on one network, as compose makes them.
check_stack() {
	local name
	check 'stack: database' pod_quiet run -d --name db --network both peer /bin/peer serve :5432
	check 'stack: application' pod_quiet run -d --name app --network both peer /bin/peer proxy :8000 db:5432
	if check 'stack: proxy' pod_quiet run -d --name proxy --network both -p 8080:80 peer /bin/peer proxy :80 app:8000; then
		lan "$PEER" ask tcp 10.77.0.1:8080 >/dev/null
		lan "$PEER" ask tcp '[fd77::1]:8080' >/dev/null
		check 'stack: the proxy logs' stack_logs
	fi
	for name in proxy app db; do drop "$name"; done
}

stack_logs() {
	local log
	log=$(pod logs proxy | sort -u | paste -sd,)
	echo "$log"
	[ "$SETUP" = own ] || [ "$log" = "a client from $LAN4,a client from $LAN6" ]
}

check_kills() {
	if up 'kill -9 of the helper' --network one -p 8080:80; then
		helpers | xargs kill -KILL
		wait_for 10 'its end' not helpers
		sees 'killed helper' none none lan tcp 10.77.0.1:8080
		check 'restart after it' pod_quiet restart -t 0 web
		OWN_ADDRESS=$($PEER ask tcp 127.0.0.1:8080)
		lan_sees 'restarted after it: seen'
		pkill -KILL -x conmon
		check 'kill -9 of conmon' wait_for 20 'the end of the helper' not helpers
		drop web
	fi
	as_user podman run --rm --name web --network one -p 8080:80 peer /bin/peer serve :80 >/dev/null 2>&1 &
	local runner=$!
	wait_for 20 'the container' "$PEER" ask tcp 127.0.0.1:8080
	pkill -KILL -P "$runner" -x podman || kill -KILL "$runner"
	drop web
	check 'kill -9 of podman run' wait_for 20 'the end of the helper' not helpers
}
