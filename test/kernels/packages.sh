# Debian packages of any suite and architecture, unpacked: no maintainer script
# runs, so this needs no root and no emulation. From the mirrors that this machine
# has, with an apt state of its own for each suite and architecture.

# mirror SUITE prints the address of the archive that has it.
mirror() {
	local kind=main
	[[ $1 != *-security ]] || kind=security
	cat /etc/apt/sources.list.d/*.sources | awk -v want=$kind '
		BEGIN { RS = ""; FS = "\n" }
		/debian/ && /Types:.*deb/ && (/debian-security/ ? "security" : "main") == want {
			for (i = 1; i <= NF; i++)
				if ($i ~ /^URIs:/) { split($i, words, " "); print words[2]; exit }
		}'
}

# apt_of SUITE ARCH COMMAND... runs apt-get, or the apt-NAME that COMMAND begins with.
apt_of() {
	local suite=$1 arch=$2 program=apt-get
	shift 2
	[[ $1 != apt-* ]] || { program=$1; shift; }
	local dir=$CACHE/apt/$suite-$arch
	if [ ! -e "$dir/parts/debian.sources" ]; then
		mkdir -p "$dir"/lists/partial "$dir"/parts "$dir"/cache/archives/partial
		: >"$dir/status"
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$(mirror "$suite")" "$suite" \
			/usr/share/keyrings/debian-archive-keyring.gpg >"$dir/parts/debian.sources"
	fi
	"$program" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$dir/parts" -o Dir::State::Lists="$dir/lists" \
		-o Dir::Cache="$dir/cache" -o Dir::State::status="$dir/status" -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
		-o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User= -o Debug::NoLocking=1 \
		-o APT::Install-Recommends=false "$@"
}

# update SUITE ARCH reads what the suite has, once a day.
update() {
	local stamp=$CACHE/apt/$1-$2/updated
	[ -n "$(find "$stamp" -mtime -1 2>/dev/null)" ] || { apt_of "$1" "$2" update -qq >&2 && touch "$stamp"; }
}

# kernel SUITE ARCH VERSION prints the directory in which the newest image of that
# version (6.1, or "" for any) lies unpacked.
kernel() {
	local suite=$1 arch=$2 version=$3 package parts dir
	update "$suite" "$arch"
	package=$(apt_of "$suite" "$arch" apt-cache search --names-only "^linux-image-${version:-[0-9]+[.][0-9]+}[.].*-cloud-$arch\$" |
		awk '{ print $1 }' | grep -v -e dbg -e unsigned | sort -V | tail -n 1)
	[ -n "$package" ] || { echo "$suite has no kernel $version for $arch" >&2; return 1; }
	dir=$CACHE/kernels/$suite-$arch/$package
	if [ ! -e "$dir/done" ]; then
		rm -rf "$dir" && mkdir -p "$dir"
		# From 7 on the image is several packages.
		parts=$(apt_of "$suite" "$arch" apt-cache show "$package" | sed -n 's/^Depends: //p' | head -n 1 | grep -oE 'linux-(base|binary|modules)-[^ ,]+' || true)
		# shellcheck disable=SC2086
		(cd "$dir" && apt_of "$suite" "$arch" download -qq "$package" $parts >&2 && for deb in *.deb; do dpkg -x "$deb" .; done && rm -- *.deb)
		touch "$dir/done"
	fi
	echo "$dir"
}

# What the guest needs beside our own programs.
guest_packages=(
	bash busybox-static conntrack coreutils dash findutils grep hostname iproute2 iptables iputils-ping kmod libc-bin
	mawk mount nftables procps sed uidmap util-linux
)

# base ARCH prints the file of an initramfs with a small Debian.
base() {
	local arch=$1 suite=bookworm root out deb
	out=$CACHE/base-$arch-$(cksum <<<"${guest_packages[*]}" | cut -d' ' -f1).cpio
	if [ ! -e "$out" ]; then
		update $suite "$arch"
		apt_of $suite "$arch" install -qq -y --download-only "${guest_packages[@]}" >&2
		root=$(mktemp -d "$CACHE/root.XXXXXX")
		unpack "$root" "$CACHE/apt/$suite-$arch/cache/archives"/*.deb
		configure "$root"
		archive "$root" >"$out.new" && mv "$out.new" "$out"
		rm -rf "$root"
	fi
	echo "$out"
}

unpack() {
	local root=$1 deb dir
	shift
	for dir in bin sbin lib lib32 lib64; do
		mkdir -p "$root/usr/$dir" && ln -s "usr/$dir" "$root/$dir"
	done
	for deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --no-same-owner \
			--exclude='./usr/share/*' --exclude='*/gconv/*' --exclude='./usr/lib/*/perl*' --exclude='./usr/lib/systemd/*'
	done
}

configure() {
	local root=$1 program
	ln -sf dash "$root/bin/sh"
	ln -sf mawk "$root/usr/bin/awk"
	for program in iptables ip6tables; do
		ln -sf xtables-nft-multi "$root/usr/sbin/$program"
	done
	mkdir -p "$root"/{dev,proc,sys,run,tmp,root,mnt,opt,home/penguin,home/rootlesskit-test,var/tmp}
	printf '%s\n' root:x:0:0::/root:/bin/bash penguin:x:1000:1000::/home/penguin:/bin/bash \
		rootlesskit-test:x:1001:1001::/home/rootlesskit-test:/bin/bash >"$root/etc/passwd"
	printf '%s\n' root:x:0: tty:x:5: penguin:x:1000: rootlesskit-test:x:1001: nogroup:x:65534: >"$root/etc/group"
	printf '%s\n' penguin:100000:65536 rootlesskit-test:200000:65536 | tee "$root/etc/subuid" >"$root/etc/subgid"
	printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >"$root/etc/hosts"
	printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >"$root/etc/nsswitch.conf"
}

# archive DIRECTORY writes it as an initramfs. The kernel takes several, one behind
# the other.
archive() { (cd "$1" && find . | cpio -o -H newc --owner=0:0 --quiet); }

# modules DIRECTORY-OF-A-KERNEL prints the file of an initramfs with the modules that a
# rootless network can need.
modules() {
	local dir=$1 from version out root part
	out=$dir/modules.cpio
	if [ ! -e "$out" ]; then
		from=$(find "$dir" -path '*/lib/modules/*' -prune | head -n 1)
		version=$(basename "$from")
		root=$(mktemp -d "$CACHE/root.XXXXXX")
		mkdir -p "$root/usr/lib/modules/$version/kernel/drivers/net"
		for part in net lib crypto arch drivers/net/tun.ko drivers/net/veth.ko drivers/net/dummy.ko; do
			cp -r "$from/kernel/$part"* "$root/usr/lib/modules/$version/kernel/$(dirname "$part")/" 2>/dev/null || true
		done
		cp "$from"/modules.* "$root/usr/lib/modules/$version/"
		ln -s usr/lib "$root/lib"
		depmod -b "$root" "$version"
		archive "$root" >"$out"
		rm -rf "$root"
	fi
	echo "$out"
}
