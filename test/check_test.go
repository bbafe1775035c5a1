package test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck: this host is fit, the tests run on it; then less and less so.
func TestCheck(t *testing.T) {
	kit := bin("rootlesskit")
	for _, tt := range []struct {
		name    string
		command []string
		failing string // the check that fails; empty for none
	}{
		{"fit", []string{kit, "--check", "--json"}, ""},
		{"helper chosen", []string{kit, "--check", "--json", "--net=slirp4netns"}, ""},
		{"helper missing", []string{kit, "--check", "--json", "--net=slirp4netns", "--slirp4netns-binary=/nosuch"}, "slirp4netns"},
		{"helper not needed", []string{kit, "--check", "--json", "--slirp4netns-binary=/nosuch"}, ""},
		{"no new privileges", []string{"setpriv", "--no-new-privs", kit, "--check", "--json"}, "no-new-privs"},
		{"no user namespaces", []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
			"echo 0 >/proc/sys/user/max_user_namespaces; exec " + kit + " --check --json"}, "user.max_user_namespaces"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runCmd(t, exec.CommandContext(t.Context(), tt.command[0], tt.command[1:]...))
			var report struct {
				OK      bool
				Results []struct{ Name, Status, Message, Fix string }
			}
			if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
				t.Fatalf("%v: %q, stderr %q", err, r.stdout, r.stderr)
			}
			failed := ""
			for _, res := range report.Results {
				if res.Status == "error" && failed == "" {
					failed = res.Name
				}
				if (res.Status == "ok") != (res.Fix == "") {
					t.Errorf("%+v", res)
				}
			}
			if failed != tt.failing || report.OK != (tt.failing == "") || (r.code == 0) != report.OK || r.code > 1 {
				t.Errorf("failed %q, want %q; ok %v, code %d\n%s", failed, tt.failing, report.OK, r.code, r.stdout)
			}
		})
	}
	if r := runKit(t, "--check"); r.code != 0 || !strings.HasPrefix(r.stdout, "ok       subids: ") {
		t.Errorf("code %d: %s", r.code, r.stdout)
	}
}

// checkedOptions are options that --check and a run are asked about.
var checkedOptions = [][]string{
	{"--net=foo"}, {"--net=vpnkit"}, {"--net=host", "--port-driver=builtin"}, {"--net=none", "--port-driver=foo"},
	{"--net=none", "--port-driver=pasta"}, {"--net=pasta", "--port-driver=builtin"}, {"--net=none", "--port-driver=pesto"},
	{"-p", "bad"}, {"-p", "8080:80"}, {"--net=none", "--port-driver=builtin", "-p", "bad"},
	{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:0:80/tcp"},
	{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:19971:80/tcp"},
	{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:19971:80/tcp", "-p", "127.0.0.1:19971:80/tcp"},
	{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:19971:80/tcp", "-p", "127.0.0.1:19971:80/udp"},
	{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:19971:80/sctp"},
	{"--net=none", "--port-driver=builtin", "-p", "203.0.113.77:19971:80/tcp"},
	{"--net=none", "--port-driver=builtin", "--source-ip-transparent-backend=foo"},
	{"--net=none", "--bypass4netnsd-socket=/tmp/none"},
	{"--mtu=100000"}, {"--mtu=-1"}, {"--mtu=1500"}, {"--net=none", "--mtu=1500"},
	{"--net=gvisor-tap-vsock", "--mtu=65521"}, {"--net=gvisor-tap-vsock", "--cidr=10.9.0.0/16"},
	{"--net=gvisor-tap-vsock", "--cidr=10.9.0.1/16"}, {"--net=gvisor-tap-vsock", "--cidr=127.0.0.0/8"}, {"--net=none", "--cidr=10.9.0.0/16"},
	{"--net=gvisor-tap-vsock", "--ifname=a/b"}, {"--net=gvisor-tap-vsock", "--ifname=abcdefghijklmnop"}, {"--ifname=x"},
	{"--net=slirp4netns", "--slirp4netns-sandbox=foo"}, {"--net=slirp4netns", "--slirp4netns-sandbox=true", "--detach-netns"},
	{"--net=slirp4netns", "--slirp4netns-binary=/nosuch"}, {"--net=slirp4netns"}, {"--net=pasta"}, {"--net=pasta", "--pasta-binary=/nosuch"},
	{"--net=pasta", "--port-driver=pesto", "--pesto-binary=/nosuch"}, {"--net=auto"}, {"--net=auto", "--port-driver=auto"},
	{"--net=none", "--port-driver=implicit"}, {"--net=slirp4netns", "--port-driver=gvisor-tap-vsock"},
	{"--copy-up=/nonexistent"}, {"--copy-up=/etc"}, {"--copy-up=/etc/passwd"}, {"--copy-up=/tmp"}, {"--copy-up=etc"}, {"--copy-up=/proc"},
	{"--copy-up-mode=foo"}, {"--copy-up=/etc", "--propagation=rshared"}, {"--propagation=foo"}, {"--propagation=rslave"},
	{"--state-dir=/root/x"},
	{"--state-dir=/etc/passwd"},
	{"--pidns", "--reaper=true"}, {"--reaper=true"}, {"--reaper=foo"}, {"--evacuate-cgroup2=x"}, {"--sdnotify=foo"},
	{"--subid-source=foo"}, {"--subid-source=static"}, {"--nosuchflag"},
}

// TestCheckAgrees: --check finds what the run with the same options fails with,
// and what it accepts runs.
func TestCheckAgrees(t *testing.T) {
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	foreign, readOnly, held := t.TempDir(), t.TempDir(), startKit(t, "sleep", "8640")
	if err := errors.Join(os.Mkdir(filepath.Join(foreign, "x"), 0o755), os.Chmod(readOnly, 0o500)); err != nil {
		t.Fatal(err)
	}
	for _, options := range append(checkedOptions,
		[]string{"--net=none", "--port-driver=builtin", "-p", busy.Addr().String() + ":80/tcp"},
		[]string{"--state-dir=" + foreign}, []string{"--state-dir=" + readOnly}, []string{"--state-dir=" + held.stateDir},
		[]string{"--state-dir=" + t.TempDir()}, []string{"--state-dir=" + filepath.Join(t.TempDir(), "a", "b")},
	) {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			checked := runKit(t, append([]string{"--check"}, options...)...)
			run := runKit(t, append(options, "true")...)
			if checked.code != run.code {
				t.Errorf("--check has code %d, the run %d: %s\n%s%s", checked.code, run.code, run.stderr, checked.stdout, checked.stderr)
			}
			reason, found := strings.CutPrefix(errorLine(run.stderr), "[rootlesskit:parent] error: ")
			reason = strings.TrimPrefix(reason, "setting up the child: ")
			if found && !strings.Contains(checked.stdout+checked.stderr, reason) {
				t.Errorf("--check does not say %q: %s%s", reason, checked.stdout, checked.stderr)
			}
		})
	}
}
