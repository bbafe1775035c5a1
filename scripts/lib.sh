# shellcheck shell=bash
# Steps that test-host and demo share. To be sourced by bash.

# The ordinary user that tests and the demo run as when started as root. The
# name is also in internal/nstest.
TEST_USER=rootlesskit-test

say() { printf '%s\n' "$*" >&2; }

# missing_packages PACKAGE... prints those that are not installed.
missing_packages() {
	local installed p
	# dpkg-query fails on a package that it never heard of.
	installed=$({ dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } |
		sed -n 's/^installed //p')
	for p; do
		grep -qxF -- "$p" <<<"$installed" || printf '%s\n' "$p"
	done
}

# install_packages PACKAGE... installs them, and neither starts nor enables what
# they bring: a service of the machine's would take the ports that tests use.
install_packages() (
	export DEBIAN_FRONTEND=noninteractive
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 0755 "$policy"
	fi
	say "installing: $*"
	enabled=$(enabled_units)
	# One repository out of reach does not matter if the rest has it all.
	apt -qq update || say 'apt-get update: some package lists could not be fetched'
	apt -qq -y --no-install-recommends install "$@" || exit
	comm -13 <(printf '%s\n' "$enabled") <(enabled_units) | xargs -r rm -f --
)

# apt shows what apt-get says only where that fails.
apt() {
	local out
	out=$(apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null 2>&1) || {
		say "$out"
		return 1
	}
}

# enabled_units prints the links that start units with the machine, sorted.
enabled_units() {
	find /etc/systemd/system -path '*.wants/*' -type l 2>/dev/null | sort
}

# ensure_packages PACKAGE... makes no apt call where everything is there.
ensure_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

# next_free_subid FILE prints the first id above all ranges of the file.
next_free_subid() {
	awk -F: -v next_id=100000 '$2 + $3 > next_id { next_id = $2 + $3 } END { print next_id }' "$1"
}

# ensure_test_user makes the user, its ranges of 65536 subordinate ids, and its
# runtime directory.
ensure_test_user() {
	local kind file first uid
	touch /etc/subuid /etc/subgid # useradd hands out ranges only where they exist
	id -u "$TEST_USER" >/dev/null 2>&1 ||
		useradd --create-home --shell /bin/sh "$TEST_USER"
	for kind in uid gid; do
		file=/etc/sub$kind
		grep -q "^$TEST_USER:" "$file" && continue
		first=$(next_free_subid "$file")
		usermod "--add-sub${kind}s" "$first-$((first + 65535))" "$TEST_USER"
	done
	uid=$(id -u "$TEST_USER")
	install -d -m 0700 -o "$TEST_USER" -g "$(id -g "$TEST_USER")" "/run/user/$uid"
}

# ensure_tun lets ordinary users open TAP devices. It says why where it cannot.
ensure_tun() {
	if [ ! -c /dev/net/tun ]; then
		mkdir -p /dev/net
		mknod /dev/net/tun c 10 200 2>/dev/null || {
			say 'there is no /dev/net/tun and none can be made here: networks with a TAP device will not work'
			return 1
		}
	fi
	[ "$(stat -c %a /dev/net/tun)" = 666 ] || chmod 0666 /dev/net/tun
}

# as_test_user COMMAND... runs it as the test user, with an environment of its
# own. It ends with the caller.
as_test_user() {
	local uid
	uid=$(id -u "$TEST_USER")
	setpriv --reuid="$uid" --regid="$(id -g "$TEST_USER")" --init-groups --pdeathsig=TERM -- \
		env -i PATH="$PATH" LANG=C.UTF-8 USER="$TEST_USER" LOGNAME="$TEST_USER" \
		HOME="$(getent passwd "$TEST_USER" | cut -d: -f6)" XDG_RUNTIME_DIR="/run/user/$uid" "$@"
}
