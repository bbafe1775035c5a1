# $own is a directory of this machine's alone.

# boot ARCH DIRECTORY-OF-A-KERNEL SCRIPT [PARAMETER...] boots the kernel with all that
# the guest needs in its initramfs, so that no disk, no file system and no order of
# modules is needed, and prints the lines that the script means for us.
boot() {
	local arch=$1 dir=$2 script=$3 initramfs=$own.initramfs image
	shift 3
	rm -rf "$own" && mkdir -p "$own/opt/rk" "$own/guest"
	cp guest/* "$own/guest/" && mv "$own/guest/init" "$own/init" && chmod 0755 "$own/init"
	cp "$WORK/$arch"/* "$own/opt/rk/"
	[ -z "${UPSTREAM:-}" ] || [ "$arch" != amd64 ] || { mkdir "$own/opt/up" && cp "$UPSTREAM/rootlesskit" "$own/opt/up/"; }
	[ -z "${TESTS:-}" ] || testdata
	archive "$own" | cat "$(base "$arch")" "$(modules "$dir")" - >"$initramfs"
	image=$(find "$dir" -name 'vmlinuz*' -type f | head -n 1)
	local machine=(qemu-system-x86_64 -machine q35 -cpu max) console=ttyS0
	[ "$arch" = amd64 ] || { machine=(qemu-system-aarch64 -machine virt -cpu cortex-a72) && console=ttyAMA0; }
	timeout "${LIMIT:-2400}" "${machine[@]}" -accel tcg,thread=multi -smp 2 -m 1536 -nodefaults -no-reboot -display none \
		-serial stdio -kernel "$image" -initrd "$initramfs" -append "console=$console quiet panic=-1 script=$script $*" </dev/null 2>&1 |
		sed -u 's,\r,,' | if [ -n "${LOG:-}" ]; then tee /dev/stderr; else cat; fi | grep --line-buffered -a -E '^(CHECK|FEATURE|INFO|TEST) ' || true
}

# testdata brings the files along that tests read.
testdata() {
	local package
	printf '%s\n' "${TESTFLAGS:-}" >"$own/opt/testflags"
	for package in $TESTS; do
		mkdir -p "$own/opt/src/$package"
		[ ! -d "../../$package/testdata" ] || cp -r "../../$package/testdata" "$own/opt/src/$package/"
	done
}
