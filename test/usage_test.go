package test

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// badInputs is what is refused, and the error.
var badInputs = []struct {
	args []string
	want string
}{
	{nil, `no command specified`},
	{[]string{"--net=none"}, `no command specified`},
	{[]string{"--print-semver=x"}, `expected --print-semver=(major|minor|patch), got "x"`},
	{[]string{"--net=foo", "true"}, `unknown network mode: foo`},
	{[]string{"--net=vpnkit", "true"}, `network driver "vpnkit" is retired: use gvisor-tap-vsock (embedded), slirp4netns or pasta`},
	{[]string{"--port-driver=foo", "true"}, `unknown port driver: foo`},
	{[]string{"--port-driver=builtin", "true"}, `port driver requires non-host network`},
	{[]string{"--net=gvisor-tap-vsock", "--port-driver=slirp4netns", "true"}, `port driver requires slirp4netns network`},
	{[]string{"--net=gvisor-tap-vsock", "--port-driver=implicit", "true"}, `port driver "implicit" requires --net=pasta`},
	{[]string{"--net=gvisor-tap-vsock", "--port-driver=pesto", "true"}, `port driver "pesto" requires --net=pasta`},
	{[]string{"--net=gvisor-tap-vsock", "--port-driver=pasta", "true"}, `unknown port driver "pasta": did you mean "pesto"?`},
	{[]string{"--net=none", "--port-driver=gvisor-tap-vsock", "true"}, `network "none" requires either port driver "none" or "builtin"`},
	{[]string{"--net=pasta", "--port-driver=builtin", "true"}, `network "pasta" requires port driver "none" or "implicit" or "pesto"`},
	{[]string{"--net=gvisor-tap-vsock", "--cidr=10.0.2.100/24", "true"}, `cidr must be like 10.0.2.0/24, not like 10.0.2.100/24`},
	{[]string{"--net=none", "--cidr=10.0.2.0/24", "true"}, `custom cidr is not supported for --net=none`},
	{[]string{"--cidr=10.0.2.0/24", "true"}, `custom cidr is not supported for --net=host`},
	{[]string{"--net=vpnkit", "--cidr=10.0.2.0/24", "true"}, `custom cidr is not supported for --net=vpnkit`},
	{[]string{"--net=lxc-user-nic", "--cidr=10.0.2.0/24", "true"}, `custom cidr is not supported for --net=lxc-user-nic`},
	{[]string{"--net=gvisor-tap-vsock", "--mtu=70000", "true"}, `mtu must be <= 65521, got 70000`},
	{[]string{"--mtu=-5", "true"}, `mtu must be between 0 and 65521, got -5`},
	{[]string{"--ifname=foo", "true"}, `ifname cannot be specified for --net=host`},
	{[]string{"--net=none", "--ifname=foo", "true"}, `ifname cannot be specified for --net=none`},
	{[]string{"--net=gvisor-tap-vsock", "--ifname=a/b", "true"}, `ifname must not contain "/"`},
	{[]string{"-p", "127.0.0.1:8080:80/tcp", "true"}, `port driver "none" does not support publishing ports`},
	{[]string{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:8080:80", "true"}, `missing proto in PortSpec string: "127.0.0.1:8080:80": did you mean "127.0.0.1:8080:80/tcp"?`},
	{[]string{"--net=none", "--port-driver=builtin", "-p", "foo:8080:80/tcp", "true"}, `unexpected ParentIP in PortSpec string: "foo:8080:80/tcp"`},
	{[]string{"--net=none", "--port-driver=builtin", "--source-ip-transparent-backend=foo", "true"}, `unknown source-ip-transparent-backend: foo`},
	{[]string{"--propagation=rshared", "--copy-up=/etc", "true"}, `propagation rshared does not support copy-up driver tmpfs+symlink`},
	{[]string{"--copy-up=/tmp", "true"}, `/tmp cannot be copied up`},
	{[]string{"--copy-up=/proc", "true"}, `/proc cannot be copied up`},
	{[]string{"--copy-up=/run,/sys/", "true"}, `/sys cannot be copied up`},
	{[]string{"--net=gvisor-tap-vsock", "--cidr=127.0.0.0/8", "true"}, `cidr must be a network of ordinary addresses, such as 10.0.2.0/24: 127.0.0.0/8 is loopback, multicast, link-local or unspecified`},
	{[]string{"--net=gvisor-tap-vsock", "--cidr=224.1.0.0/16", "true"}, `cidr must be a network of ordinary addresses, such as 10.0.2.0/24: 224.1.0.0/16 is loopback, multicast, link-local or unspecified`},
	{[]string{"--net=slirp4netns", "--cidr=169.254.0.0/16", "true"}, `cidr must be a network of ordinary addresses, such as 10.0.2.0/24: 169.254.0.0/16 is loopback, multicast, link-local or unspecified`},
	{[]string{"--net=pasta", "--cidr=0.0.0.0/8", "true"}, `cidr must be a network of ordinary addresses, such as 10.0.2.0/24: 0.0.0.0/8 is loopback, multicast, link-local or unspecified`},
	{[]string{"--net=none", "--port-driver=builtin", "--bypass4netnsd-socket=/tmp/x", "true"}, `bypass4netnsd-socket requires --port-driver=bypass4netns, got "builtin"`},
	{[]string{"--copy-up-mode=foo", "true"}, `unknown copy-up mode: foo`},
	{[]string{"--reaper=true", "true"}, `reaper requires --pidns`},
	{[]string{"--reaper=foo", "true"}, `unknown reaper mode: foo`},
	{[]string{"--evacuate-cgroup2=foo", "true"}, `evacuate-cgroup2 requires --cgroupns`},
	{[]string{"--evacuate-cgroup2=foo", "--cgroupns", "true"}, `evacuate-cgroup2 requires --pidns`},
	{[]string{"--subid-source=foo", "true"}, `failed to setup UID/GID map: failed to compute uid/gid map: unknown subid source "foo"`},
	{[]string{"--nosuchflag", "true"}, `flag provided but not defined: -nosuchflag`},
	{[]string{"--copy-up=/nosuch", "true"}, `setting up the child: copy-up of /nosuch: lstat /nosuch: no such file or directory`},
	{[]string{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:8080:80/sctp", "true"}, `failed to expose port 127.0.0.1:8080:80/sctp: unsupported port protocol sctp`},
	{[]string{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:0:80/tcp", "true"}, `invalid ParentPort: 0`},
}

// TestBadInput holds every refusal to its exact text, and to leaving nothing
// behind.
func TestBadInput(t *testing.T) {
	for _, tt := range badInputs {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			r := refused(t, tt.args)
			if want := "[rootlesskit:parent] error: " + tt.want; errorLine(r.stderr) != want {
				t.Errorf("stderr ends with %q\nwant             %q", r.stderr, want)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for args, want := range map[string]string{
		"--version":            "rootlesskit version 3.4.0-dev\n",
		"--print-semver=major": "3\n",
		"--print-semver=minor": "4\n",
		"--print-semver=patch": "0\n",
	} {
		if r := runKit(t, args); r.stdout != want || r.code != 0 {
			t.Errorf("%s: %q, code %d", args, r.stdout, r.code)
		}
	}
}

// TestGrammar holds the forms in which clients write flags.
func TestGrammar(t *testing.T) {
	for _, args := range [][]string{
		{"-net=none", "echo", "ok"},
		{"--net", "none", "echo", "ok"},
		{"--net=host", "--net=none", "--", "echo", "ok"},
		{"--debug=false", "-net", "none", "echo", "ok"},
		{"--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto", "--mtu=1500", "echo", "ok"},
		{"sh", "-c", "echo $1", "--", "ok"},
		{"env", "--", "echo", "ok"},
		{"--copy-up=/etc,/run", "sh", "-c", "test -L /etc/passwd && touch /run/x && echo ok"},
	} {
		if r := runKit(t, args...); r.stdout != "ok\n" {
			t.Errorf("%q printed %q, %q", args, r.stdout, r.stderr)
		}
	}
}

// TestHints: advice comes on a line of its own, as clients know the errors.
func TestHints(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"--net=pata", `did you mean "pasta"? known: host, auto, none, pasta, slirp4netns, lxc-user-nic, gvisor-tap-vsock`},
		{"--net=foo", `known: host, auto, none, pasta, slirp4netns, lxc-user-nic, gvisor-tap-vsock`},
		{"--port-driver=buildin", `did you mean "builtin"? known: none, auto, builtin, implicit, pesto, slirp4netns, gvisor-tap-vsock, bypass4netns`},
		{"--pubilsh=8080:80", `did you mean --publish? rootlesskit --help lists the options`},
		{"--zzz", `rootlesskit --help lists the options`},
	} {
		r := runKit(t, tt.arg, "true")
		if want := "[rootlesskit:parent] hint: " + tt.want; lastLine(r.stderr) != want || r.code != 1 {
			t.Errorf("%s: code %d, %q\nwant %q", tt.arg, r.code, r.stderr, want)
		}
	}
}

// TestMeaninglessOptions: what changes nothing is said, once.
func TestMeaninglessOptions(t *testing.T) {
	for _, network := range []string{"host", "none"} {
		r := runKit(t, "--net="+network, "--disable-host-loopback", "true")
		if r.code != 0 || strings.Count(r.stderr, "--disable-host-loopback has no effect with --net="+network) != 1 {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
	}
}

// TestHelpFits: help has lines of 80 columns at most, and is the same however it is
// asked for.
func TestHelpFits(t *testing.T) {
	for _, args := range []string{
		"rootlesskit --help", "rootlessctl --help", "rootlesskit-docker-proxy --help",
		"rootlessctl list-ports --help", "rootlessctl add-ports --help", "rootlessctl remove-ports --help", "rootlessctl info --help",
	} {
		words := strings.Fields(args)
		r := runCmd(t, exec.Command(bin(words[0]), words[1:]...))
		if r.code != 0 || len(r.stdout)+len(r.stderr) < 300 {
			t.Errorf("%s: code %d, and help of %d bytes", args, r.code, len(r.stdout)+len(r.stderr))
		}
		for line := range strings.Lines(r.stdout + r.stderr) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", args, n, line)
			}
		}
		words[len(words)-1] = "-h"
		if again := runCmd(t, exec.Command(bin(words[0]), words[1:]...)); again != r {
			t.Errorf("%v prints something else than %s", words, args)
		}
	}
}
