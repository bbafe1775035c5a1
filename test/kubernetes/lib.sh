# shellcheck shell=bash
# The settings, and what the parts share.

NET=${NET:-gvisor-tap-vsock}
PORT=${PORT:-builtin}
MTU=${MTU:-1500}
CHILD=${CHILD-own}
PROXYMODE=${PROXYMODE:-nftables}
CACHE=${CACHE:-/var/tmp/rootlesskit-kubernetes}
RUN=${RUN:-/var/tmp/rootlesskit-kubernetes-run}
BIN=$RUN/bin
export KUBECONFIG=$RUN/keys/admin.conf

started=$EPOCHREALTIME
elapsed() { awk "BEGIN{printf \"%.1f\", $EPOCHREALTIME - ${1:-$started}}"; }
step() { say "$(elapsed) s  $*"; }

# host N is the address of a host in the LAN; 10.99.0.100 is a client there.
host() { echo "10.99.0.$1"; }
user_of() { echo "rootlesskit-node$1"; }
lan() { nsenter --net=/run/netns/k8slan "$@"; }
k() { lan timeout "${LIMIT:-30}" "$BIN/kubectl" --request-timeout=10s "$@"; }

# as_host N COMMAND... becomes the command, in host N, as its user.
as_host() {
	local n=$1
	shift
	exec nsenter --net="/run/netns/k8sh$n" -- setpriv --reuid "$(user_of "$n")" --regid "$(user_of "$n")" --init-groups \
		env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$RUN/node$n" XDG_RUNTIME_DIR="$RUN/node$n/run" \
		RUN="$RUN" MTU="$MTU" PROXYMODE="$PROXYMODE" setsid "$@"
}
