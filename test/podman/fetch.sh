# shellcheck shell=bash
# Where Podman comes from: each Debian suite's own, with all that it depends on, down
# to the C library, in a root of its own. Nothing is installed.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rootlesskit-podman

packages=(
	podman netavark aardvark-dns conmon crun catatonit slirp4netns passt uidmap iptables nftables iproute2
	busybox-static base-files base-passwd bash coreutils dash findutils grep libc-bin mawk mount passwd procps sed util-linux
)

# suite_root SUITE prints the directory of the suite's root. It is made once.
suite_root() {
	local root=$CACHE/$1
	[ -e "$root.complete" ] || make_root "$1" >&2 || return
	echo "$root"
}

make_root() {
	local root=$CACHE/$1 apt=$CACHE/apt-$1 name deb
	rm -rf "$root"
	mkdir -p "$root/usr" "$apt"/state/lists/partial "$apt"/cache/archives/partial
	: >"$apt/status"
	printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n' \
		/usr/share/keyrings/debian-archive-keyring.gpg "$1" >"$apt/sources.list"
	say "fetching Podman of Debian $1"
	private_apt "$1" update >"$apt/log" 2>&1 &&
		private_apt "$1" install --download-only --no-install-recommends "${packages[@]}" >>"$apt/log" 2>&1 || {
		tail -n 3 "$apt/log"
		return 1
	}
	for name in bin sbin lib lib64; do
		mkdir "$root/usr/$name"
		ln -s "usr/$name" "$root/$name"
	done
	for deb in "$apt"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" || return
	done
	# What the packages' own scripts would do.
	ln -s mawk "$root/usr/bin/awk"
	for name in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
		ln -s xtables-nft-multi "$root/usr/sbin/$name"
	done
	rm -rf "$apt"
	touch "$root.complete"
}

# private_apt SUITE ARGUMENT... runs apt-get with a state of its own.
private_apt() {
	local dir=$CACHE/apt-$1
	shift
	apt-get -q -y -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}
