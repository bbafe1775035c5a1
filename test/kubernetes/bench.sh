# shellcheck shell=bash
# Measures a cluster on this launcher, and on another one in the same run.

# bench measures the launcher of BIN_DIR or of this tree, and that of UPSTREAM, in turn,
# ROUNDS times, and prints a table, for TABLE too.
bench() {
	local round name results=${RESULTS:-$CACHE/bench.tsv}
	: "${UPSTREAM:?the directory of another launcher to compare with}"
	CHILD=own # which the other one needs
	mkdir -p "$CACHE"
	: >"$results"
	for round in $(seq "${ROUNDS:-1}"); do
		for name in this upstream; do
			step "round $round: $name"
			bench_one "$name" | tee -a "$results"
		done
	done
	table "$results"
	[ -z "${TABLE:-}" ] || chapter "$results" >"../../$TABLE"
}

# chapter FILE is the table with what a reader of bench/RESULTS.md has to know.
chapter() {
	cat <<-END

		## Kubernetes

		Two nodes, on this launcher and on upstream's in turn: medians of ${ROUNDS:-1} rounds (\`make bench-kubernetes\`),
		$(date -u +%F), commit $(git -C ../.. describe --always --dirty), Linux $(uname -r), $(nproc) CPUs. How a node is made: [kubernetes.md](../docs/kubernetes.md).

	END
	table "$1"
}

# bench_one NAME measures one launcher, and prints nothing but its figures.
bench_one() {
	local dir=${BIN_DIR:-}
	[ "$1" = this ] || dir=$UPSTREAM
	{
		BIN_DIR=$dir build
		up
		until_true 180 ready || true
		k apply -f work.yaml >/dev/null
		wait_pods
	} >&2
	measure "$1"
	down >&2
}

# table FILE prints the medians: of seconds where much was sent, else of the first
# answer's and of the usual one's milliseconds.
table() {
	awk -F'\t' '
	function median(key,   n, i, j, t, v) {
		n = split(values[key], v, " ")
		for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j-1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
		return n ? v[int((n + 1) / 2)] : "-"
	}
	function note(figure, value) {
		if (!(figure in known)) { known[figure]; order[++figures] = figure }
		values[$1, figure] = values[$1, figure] " " value
	}
	{
		if (split($3, w, " ") == 6 && w[1] == "first") { note($2 ", the first (ms)", w[2]); note($2 " (ms)", w[5]) }
		else if (match($3, / in [0-9.]+ s: enough/)) { split(substr($3, RSTART), w, " "); note($2 " (s)", w[2]) }
		else failed[$1]++
	}
	END {
		print "| Figure | this | upstream |\n|---|---|---|"
		for (i = 1; i <= figures; i++) {
			f = order[i]
			printf "| %s | %s | %s |\n", f, median("this" SUBSEP f), median("upstream" SUBSEP f)
		}
		printf "| samples that failed | %d | %d |\n", failed["this"], failed["upstream"]
	}' "$1"
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
