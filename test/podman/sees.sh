# shellcheck shell=bash
# What a server sees of its clients: the rows of docs/podman.md. To be sourced.

# sees NAME OWN OURS FROM PROTO ADDRESS [CONTAINER]: asks from the host or the LAN, and
# compares the answer with what is expected of the helper at hand: "own" is the
# container's address, "none" that there is no answer.
sees() {
	local name=$1 want=$2 from=() got
	[ "$SETUP" = own ] || want=$3
	[ "$4" = host ] || from=(lan)
	[ "$want" != own ] || want=$OWN_ADDRESS
	got=$("${from[@]}" "$PEER" ask "$5" "$6" 2>/dev/null) || got=none
	check "$name" test_equal "$got" "$want"
}

test_equal() { if [ "$1" = "$2" ]; then echo "$1"; else echo "got $1, want $2"; return 1; fi; }

# up NAME OPTION... starts the container web, or leaves none.
up() {
	if check "$1" serve web "${@:2}"; then
		OWN_ADDRESS=$(own_address web)
	else
		drop web
		return 1
	fi
}

check_clients() {
	if up 'network of IPv4' --network one -p 8080:80/tcp -p 8080:80/udp; then
		sees 'LAN, TCP, IPv4' own $LAN4 lan tcp 10.77.0.1:8080
		sees 'LAN, UDP, IPv4' own $LAN4 lan udp 10.77.0.1:8080
		sees 'LAN, TCP, IPv6, network of IPv4' own $LAN6 lan tcp '[fd77::1]:8080'
		sees 'LAN, UDP, IPv6, network of IPv4' own own lan udp '[fd77::1]:8080'
		sees 'loopback, TCP' own own host tcp 127.0.0.1:8080
		sees 'loopback, UDP' own own host udp 127.0.0.1:8080
		sees 'loopback, TCP, IPv6' own own host tcp '[::1]:8080'
		sees 'host by its address' own 10.77.0.1 host tcp 10.77.0.1:8080
		drop web
	fi
	if up 'network of both families' --network both -p 8080:80/tcp -p 8080:80/udp; then
		sees 'LAN, TCP, IPv6, network of both' own $LAN6 lan tcp '[fd77::1]:8080'
		sees 'LAN, UDP, IPv6, network of both' own $LAN6 lan udp '[fd77::1]:8080'
		drop web
	fi
	if up slirp4netns --network slirp4netns:port_handler=rootlesskit -p 8080:80/tcp -p 8080:80/udp; then
		OWN_ADDRESS=10.0.2.100
		sees 'LAN, TCP, slirp4netns' own $LAN4 lan tcp 10.77.0.1:8080
		sees 'LAN, UDP, slirp4netns' own $LAN4 lan udp 10.77.0.1:8080
		drop web
	fi
	if up 'internal network' --network closed -p 8080:80/tcp -p 8080:80/udp; then
		sees 'LAN, TCP, internal' own $LAN4 lan tcp 10.77.0.1:8080
		sees 'LAN, UDP, internal' own own lan udp 10.77.0.1:8080
		drop web
	fi
}

check_loopback() {
	if check 'server on loopback' pod_quiet run -d --name web --network one -p 8080:80 peer /bin/peer serve 127.0.0.1:80; then
		sees 'LAN, server on loopback' none none lan tcp 10.77.0.1:8080
		drop web
	fi
	if up 'NAT inside' --network one -p 8080:81; then
		check 'NAT rule' nat_inside
		sees 'LAN, NAT inside' own $LAN4 lan tcp 10.77.0.1:8080
		drop web
	fi
}

# nat_inside leads port 81 to 80.
nat_inside() {
	local pid hook
	pid=$(pod inspect -f '{{.State.Pid}}' web)
	for hook in PREROUTING OUTPUT; do
		as_user podman unshare nsenter -t "$pid" -n iptables -t nat -A "$hook" -p tcp --dport 81 -j REDIRECT --to-ports 80 || return
	done
}
