# shellcheck shell=bash
# Measures a cluster on this launcher, and on another one in the same run.

# bench measures the launcher of BIN_DIR or of this tree, and that of UPSTREAM.
bench() {
	local dir name
	CHILD=own # which the other one needs
	for name in this upstream; do
		dir=${BIN_DIR:-}
		[ "$name" = this ] || dir=${UPSTREAM:?the directory of another launcher to compare with}
		BIN_DIR=$dir build
		up
		until_true 180 ready || true
		k apply -f work.yaml >/dev/null
		wait_pods
		measure "$name" | tee -a "${RESULTS:-/dev/stdout}"
		down
	done
}

# measure prints the figures of the cluster that is up.
measure() {
	local name=$1 own n
	own=$(host 2)
	# Before anything else, it is the first packet of the LAN's to that port.
	row "$name" 'NodePort, UDP, a request' lan "$BIN/pod" ask udp "$own:30080" 500
	row "$name" 'NodePort, TCP, a connection and a request' lan "$BIN/pod" ask tcp "$own:30080" 500
	row "$name" 'pod to pod, UDP, a request' in_pod "$p1" /pod ask udp "$a2:8080" 500
	row "$name" 'pod to pod, TCP, a connection and a request' in_pod "$p1" /pod ask tcp "$a2:8080" 500
	for n in 1 2 3 4 5; do
		row "$name" 'pod to pod, TCP, 100 MB there and back' in_pod "$p1" /pod send tcp "$a2:8081" 100000000
		row "$name" 'NodePort, TCP, 100 MB there and back' lan "$BIN/pod" send tcp "$own:30083" 100000000
	done
}

row() { printf '%s\t%s\t%s\n' "$1" "$2" "$(LIMIT=120 "${@:3}" 2>&1 | tail -1)"; }
