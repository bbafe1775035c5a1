# shellcheck shell=bash
# Installs the packages that the cluster needs, and builds its programs, as far as
# that is not done.

packages=(
	conntrack containerd containernetworking-plugins iproute2 iptables iputils-ping nftables openssl runc slirp4netns
	uidmap
)

# programs are the names of hyper.
programs=(coredns etcd kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler)

build() {
	local missing program
	missing=$(missing_packages "${packages[@]}")
	# shellcheck disable=SC2086
	[ -z "$missing" ] || install_packages $missing
	mkdir -p "$CACHE" "$BIN"
	chmod 0755 "$CACHE" "$RUN" "$BIN"
	if [ ! -x "$CACHE/hyper" ]; then
		step 'building Kubernetes: ten minutes on two idle CPUs'
		CGO_ENABLED=0 go build -C hyper -trimpath -buildvcs=false -o "$CACHE/hyper" \
			-ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.34.1' .
	fi
	if [ ! -x "$CACHE/busybox" ]; then
		step 'fetching busybox'
		fetch_busybox
	fi
	step 'building the launcher and what runs in pods'
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$BIN/pod" ./pod
	if [ -n "${BIN_DIR:-}" ]; then
		cp -f "$BIN_DIR"/rootless* "$BIN/"
	else
		make -s -C ../.. build
		cp -f ../../bin/rootless* "$BIN/"
	fi
	for program in "${programs[@]}"; do ln -sf "$CACHE/hyper" "$BIN/$program"; done
	install -m 0755 node.sh "$BIN/node.sh"
}

# fetch_busybox unpacks the package: busybox and busybox-static exclude each other.
fetch_busybox() (
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	chmod 0755 "$dir"
	cd "$dir"
	apt-get -qq download busybox-static >&2
	dpkg-deb -x busybox-static_*.deb .
	install -m 0755 bin/busybox "$CACHE/busybox"
)

# make_image makes the one image of the cluster: pod, pause and busybox.
make_image() (
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	mkdir -p "$dir/root"/{bin,tmp,etc,proc,sys,dev} "$dir/image"
	cp "$BIN/pod" "$dir/root/pod"
	ln -s pod "$dir/root/pause"
	cp "$CACHE/busybox" "$dir/root/bin/"
	for applet in sh ping nslookup; do ln -s busybox "$dir/root/bin/$applet"; done
	tar -C "$dir/root" --owner=0 --group=0 --numeric-owner -cf "$dir/image/layer.tar" .
	sum=$(sha256sum "$dir/image/layer.tar" | cut -d' ' -f1)
	cat >"$dir/image/config.json" <<-JSON
		{"architecture": "$(go env GOARCH)", "os": "linux", "config": {"Entrypoint": ["/pause"], "Env": ["PATH=/bin"]},
		 "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]}}
	JSON
	echo '[{"Config": "config.json", "RepoTags": ["localhost/pod:1"], "Layers": ["layer.tar"]}]' >"$dir/image/manifest.json"
	tar -C "$dir/image" -cf "$RUN/pod.tar" .
)
