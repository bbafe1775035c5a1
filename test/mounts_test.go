package test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestMounts: each script prints "ok" where the namespace is as it should be.
func TestMounts(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		flags        []string
	}{
		{"copy-up keeps the content and is writable", `
			test "$(readlink /etc/passwd)" != "" && grep -q root: /etc/passwd && test -d /etc/ssl/. &&
			echo mine > /etc/new && rm /etc/passwd && echo mine > /etc/passwd && echo ok`,
			[]string{"--copy-up=/etc"}},
		{"copy-up of nested directories", `echo x > /var/new && echo x > /var/lib/new && test -e /var/lib/dpkg/status && echo ok`,
			[]string{"--copy-up=/var/lib", "--copy-up=/var"}},
		{"copy-up of a directory behind a symlink", `echo x > /run/new && test -e /var/run/new && echo ok`,
			[]string{"--copy-up=/var/run"}},
		{"/etc is not writable without copy-up", `touch /etc/new 2>/dev/null || echo ok`, nil},
		{"resolv.conf and hosts are real files", `
			test ! -L /etc/resolv.conf && test ! -L /etc/hosts && grep -qx 'nameserver 10.0.2.1' /etc/resolv.conf &&
			grep -qx "127.0.0.1 $(hostname)" /etc/hosts && echo ok`,
			[]string{"--net=gvisor-tap-vsock", "--copy-up=/etc"}},
		{"resolv.conf is replaced without copy-up", `grep -qx 'nameserver 10.0.2.1' /etc/resolv.conf && echo ok`,
			[]string{"--net=gvisor-tap-vsock"}},
		{"none leaves resolv.conf and /sys alone", `
			! grep -q 10.0.2 /etc/resolv.conf && ls $ROOTLESSKIT_STATE_DIR | grep -q resolv.conf || echo ok`,
			[]string{"--net=none"}},
		{"/sys shows the namespace's devices", `test "$(echo /sys/class/net/*)" = "/sys/class/net/lo /sys/class/net/tap0" && ls /sys/fs/cgroup >/dev/null && echo ok`,
			[]string{"--net=gvisor-tap-vsock"}},
		{"/sys of a detached run is the host's", `test ! -e /sys/class/net/tap0 && echo ok`,
			[]string{"--net=gvisor-tap-vsock", "--detach-netns"}},
		{"/proc is the PID namespace's", `test $(ls -d /proc/[0-9]* | wc -l) -le 5 && test -e /proc/1 && echo ok`,
			[]string{"--pidns"}},
		{"propagation is private", `grep -E ' / / ' /proc/self/mountinfo | grep -qv shared: && echo ok`, []string{"--propagation=rprivate"}},
		{"propagation is slave", `echo ok`, []string{"--propagation=rslave"}},
		{"an unknown propagation is ignored", `echo ok`, []string{"--propagation=foo"}},
		{"mounts stay inside", `mount -t tmpfs none /mnt && touch /mnt/x && echo ok`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := runKit(t, append(tt.flags, "sh", "-c", tt.script)...)
			if r.stdout != "ok\n" {
				t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
			}
		})
	}
}

// TestHiddenProc: where parts of /proc are hidden, as in a container, the kernel
// allows no fresh one, and the command has the old.
func TestHiddenProc(t *testing.T) {
	r := runCmd(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		"mount -t tmpfs none /proc/sys; exec "+bin("rootlesskit")+" --pidns sh -c 'echo $$; exit 3'"))
	if r.code != 3 || r.stdout == "" || !strings.Contains(r.stderr, "the command sees the processes of the host in /proc") {
		t.Errorf("code %d: %q, %s", r.code, r.stdout, r.stderr)
	}
}

// TestDetached: the command stays in the host's network, with its files.
func TestDetached(t *testing.T) {
	r := runKit(t, "--net=gvisor-tap-vsock", "--detach-netns", "--copy-up=/etc", "sh", "-c",
		`ls $ROOTLESSKIT_STATE_DIR | tr '\n' ' '; nsenter --net=$ROOTLESSKIT_STATE_DIR/netns ip -4 -o addr show tap0`)
	if !strings.Contains(r.stdout, "api.sock child_pid hosts lock netns resolv.conf") || !strings.Contains(r.stdout, "10.0.2.100/24") {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}
