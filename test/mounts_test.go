package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const mountsOfTheHost = `grep -cE ' /(etc|sys)(/[^ ]*)? ' /proc/self/mountinfo`

// TestMounts: each script prints "ok" where the namespace is as it should be.
func TestMounts(t *testing.T) {
	// One line each, as a shell prints it.
	cgroups, devices := listed(t, "/sys/fs/cgroup"), listed(t, "/sys/class/net")
	named := timesNamed(t)
	count, _ := exec.CommandContext(t.Context(), "sh", "-c", mountsOfTheHost).Output() // grep fails where there is none
	for _, tt := range []struct {
		name, script string
		flags        []string
	}{
		{"copy-up keeps the content and is writable", `
			test "$(readlink /etc/passwd)" != "" && grep -q root: /etc/passwd && test -d /etc/ssl/. &&
			echo mine > /etc/new && rm /etc/passwd && echo mine > /etc/passwd && echo ok`,
			[]string{"--copy-up=/etc"}},
		{"other users may enter a copied-up directory", `setpriv --reuid=1000 --regid=1000 --clear-groups grep -q root: /etc/passwd && echo ok`,
			[]string{"--copy-up=/etc"}},
		{"copy-up of nested directories", `echo x > /var/new && echo x > /var/lib/new && test -e /var/lib/dpkg/status && echo ok`,
			[]string{"--copy-up=/var/lib", "--copy-up=/var"}},
		{"copy-up of a directory behind a symlink", `echo x > /run/new && test -e /var/run/new && echo ok`,
			[]string{"--copy-up=/var/run"}},
		{"/etc is not writable without copy-up", `touch /etc/new 2>/dev/null || echo ok`, nil},
		{"resolv.conf and hosts are real files", fmt.Sprintf(`
			test ! -L /etc/resolv.conf && test ! -L /etc/hosts && grep -qx 'nameserver 10.0.2.1' /etc/resolv.conf &&
			test $(grep -cx "127.0.0.1 $(hostname)" /etc/hosts) = %d && grep -qx "::1 $(hostname)" /etc/hosts && echo ok`, named+1),
			[]string{"--net=gvisor-tap-vsock", "--copy-up=/etc"}},
		{"resolv.conf is replaced without copy-up", `grep -qx 'nameserver 10.0.2.1' /etc/resolv.conf && echo ok`,
			[]string{"--net=gvisor-tap-vsock"}},
		{"none leaves /etc and /sys alone", fmt.Sprintf(`
			test "$(%s)" = %s && test ! -e $ROOTLESSKIT_STATE_DIR/resolv.conf && test -e $ROOTLESSKIT_STATE_DIR/child_pid && echo ok`,
			mountsOfTheHost, strings.TrimSpace(string(count))), []string{"--net=none"}},
		{"/sys shows the namespace's devices", fmt.Sprintf(`test "$(ls -m /sys/class/net)" = "lo, tap0" && test "$(ls -Am -w 0 /sys/fs/cgroup)" = "%s" && echo ok`, cgroups),
			[]string{"--net=gvisor-tap-vsock"}},
		{"/sys of a detached run is the host's", fmt.Sprintf(`test "$(ls -Am -w 0 /sys/class/net)" = "%s" && echo ok`, devices),
			[]string{"--net=gvisor-tap-vsock", "--detach-netns"}},
		{"/proc is the PID namespace's", `test $(ls -d /proc/[0-9]* | wc -l) -le 5 && test -e /proc/1 && echo ok`,
			[]string{"--pidns"}},
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

// timesNamed counts the lines of /etc/hosts that give the host's name to the
// loopback address: inside there is one more.
func timesNamed(t *testing.T) (n int) {
	t.Helper()
	hosts, _ := os.ReadFile("/etc/hosts") // a host may have none
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(hosts)) {
		if strings.TrimRight(line, "\n") == "127.0.0.1 "+name {
			n++
		}
	}
	return n
}

// listed is a directory of the host, as "ls -Am" prints it.
func listed(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, ", ")
}

// TestPropagation looks at the kernel's own words (proc_pid_mountinfo(5)) for the
// root and for a mount below it. The host's mounts are shared, which a new user
// namespace makes slaves of; what is set goes on from there.
func TestPropagation(t *testing.T) {
	const script = `mount -t tmpfs none "$1" && exec "$2" --propagation=$3 awk -v dir="$1" '
$5 == "/" || $5 == dir { s = ""; for (i = 7; $i != "-"; i++) { sub(/:.*/, "", $i); s = s " " $i }; print ($5 == "/" ? "/" : "below") ":" s }' /proc/self/mountinfo`
	for propagation, want := range map[string]string{
		"private":  "/:\nbelow: master\n",
		"rprivate": "/:\nbelow:\n",
		"slave":    "/: master\nbelow: master\n",
		"rslave":   "/: master\nbelow: master\n",
		"shared":   "/: shared master\nbelow: master\n",
		"rshared":  "/: shared master\nbelow: shared master\n",
		"foo":      "/: master\nbelow: master\n", // ignored
	} {
		r := runCmd(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "--propagation=shared",
			"sh", "-c", script, "sh", t.TempDir(), bin("rootlesskit"), propagation))
		if r.stdout != want {
			t.Errorf("%s: got %q, want %q: %s", propagation, r.stdout, want, r.stderr)
		}
	}
}

// TestMountsStayInside: the host sees none while the command runs.
func TestMountsStayInside(t *testing.T) {
	dir := t.TempDir()
	k := startKit(t, "sh", "-c", `mount -t tmpfs none "$0" && touch "$0/x" && echo mounted; exec sleep 600`, dir)
	poll(t, "a mount inside", func() bool { return strings.Contains(k.output.String(), "mounted\n") })
	if _, err := os.Stat(filepath.Join("/proc", k.childPID(t), "root", dir, "x")); err != nil {
		t.Errorf("inside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !os.IsNotExist(err) {
		t.Errorf("the host sees what was mounted inside: %v", err)
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
	resolvConf, _ := os.ReadFile("/etc/resolv.conf") // a host may have none
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	r := runKit(t, "--net=gvisor-tap-vsock", "--detach-netns", "--copy-up=/etc", "sh", "-c", `
readlink /proc/self/ns/net
ls $ROOTLESSKIT_STATE_DIR | tr '\n' ' '; echo
nsenter --net=$ROOTLESSKIT_STATE_DIR/netns ip -4 -o addr show tap0 | grep -o '10\.0\.2\.100/24'
grep -c ' /etc/resolv.conf ' /proc/self/mountinfo
cat /etc/resolv.conf`)
	if want := own + "\napi.sock child_pid hosts lock netns resolv.conf \n10.0.2.100/24\n0\n" + string(resolvConf); r.stdout != want {
		t.Errorf("stdout %q, want %q, stderr %q", r.stdout, want, r.stderr)
	}
}

// TestUmask: what is made for the command to read can be read by every user
// inside, whatever the caller's umask; the command has that umask.
func TestUmask(t *testing.T) {
	const script = `umask; cd $ROOTLESSKIT_STATE_DIR; stat -Lc "%a %n" . resolv.conf hosts child_pid /etc /run /etc/resolv.conf /etc/hosts
		for f in resolv.conf hosts; do setpriv --reuid 1 --regid 1 --clear-groups cat /etc/$f >/dev/null && echo read $f; done`
	const want = "0077\n755 .\n644 resolv.conf\n644 hosts\n444 child_pid\n755 /etc\n755 /run\n" +
		"644 /etc/resolv.conf\n644 /etc/hosts\nread resolv.conf\nread hosts\n"
	for _, network := range []string{"gvisor-tap-vsock", "slirp4netns", "pasta"} {
		state := filepath.Join(t.TempDir(), "state")
		r := runCmd(t, exec.CommandContext(t.Context(), "sh", "-c", `umask 077; exec "$@"`, "-", bin("rootlesskit"), "--state-dir="+state,
			"--net="+network, "--disable-host-loopback", "--copy-up=/etc", "--copy-up=/run", "sh", "-c", script))
		if r.stdout != want {
			t.Errorf("%s: %s, stderr %s", network, r.stdout, r.stderr)
		}
	}
}
