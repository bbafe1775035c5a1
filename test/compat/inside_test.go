package compat

import (
	"os"
	"strings"
	"testing"
)

// look is the command of a run: it notes what Go's runtime would change, then
// becomes the probe.
const look = `cat /proc/self/status >"$1/status"; cat /proc/self/limits >"$1/limits"; exec "$0" see "$1"`

// see reports what a command sees that was started with flags.
func (s *subject) see(t *testing.T, flags ...string) {
	t.Helper()
	args := append([]string{"--state-dir=" + s.stateDir}, flags...)
	args = append(args, "sh", "-c", look, inBin("probe"), s.dir)
	o := s.succeed(func() outcome { return finish(t, s.command(t, args...)) })
	if o.code != 0 {
		t.Fatalf("%s %v: code %d: %s", s.name, flags, o.code, o.stderr)
	}
	s.read(t, o.stdout)
	s.say("stderr", strings.Join(messages(o.stderr), "\n"))
	_, err := os.Stat(s.stateDir)
	s.saidf("state directory is removed", "%v", os.IsNotExist(err))
}

// succeed runs a program until it succeeds, or was tried often enough.
func (s *subject) succeed(run func() outcome) (o outcome) {
	for range s.attempts() {
		if o = run(); o.code == 0 {
			break
		}
	}
	return o
}

var networks = []string{"host", "none", "gvisor-tap-vsock", "slirp4netns", "pasta"}

// TestInside compares all that a command sees.
func TestInside(t *testing.T) {
	for _, network := range networks {
		for _, flags := range []string{
			"", "--disable-host-loopback --copy-up=/etc --copy-up=/run --propagation=rslave",
			"--detach-netns", "--detach-netns --copy-up=/etc --copy-up=/run --propagation=rslave --disable-host-loopback",
			"--pidns --cgroupns --utsns --ipcns --copy-up=/etc",
		} {
			insideRun(t, strings.TrimSpace("--net="+network+" "+flags))
		}
	}
	for _, flags := range []string{
		"--pidns", "--pidns --reaper=false", "--cgroupns", "--utsns", "--ipcns", "--reaper=false",
		"--propagation=private", "--propagation=rprivate", "--propagation=slave", "--propagation=rslave",
		"--propagation=shared", "--propagation=rshared", "--propagation=nonsense",
		"--copy-up=/var/lib", "--copy-up=/var --copy-up=/var/lib", "--copy-up=/var/lib --copy-up=/var", "--copy-up=/etc,/run", "--copy-up=/var/run",
		"--copy-up=/etc/ssl", "--copy-up=/opt", "--subid-source=static",
		"--net=slirp4netns --ipv6 --copy-up=/etc", "--net=pasta --ipv6 --copy-up=/etc",
		"--net=gvisor-tap-vsock --mtu=1500 --cidr=10.9.8.0/24 --ifname=eth7", "--net=slirp4netns --mtu=1500 --cidr=10.9.8.0/24 --ifname=eth7",
		"--net=pasta --mtu=1500 --cidr=10.9.8.0/24 --ifname=eth7",
		"--net=slirp4netns --slirp4netns-sandbox=auto --slirp4netns-seccomp=auto", "--net=slirp4netns --slirp4netns-sandbox=true --slirp4netns-seccomp=true",
		"--net=none --port-driver=builtin", "--net=gvisor-tap-vsock --port-driver=builtin --copy-up=/etc", "--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock",
		"--net=slirp4netns --port-driver=slirp4netns", "--net=slirp4netns --port-driver=builtin --detach-netns", "--net=pasta --port-driver=implicit",
		"--net=pasta --port-driver=pesto", "--net=none --port-driver=builtin --source-ip-transparent=false", "--mtu=1500", "--disable-host-loopback --ipv6",
	} {
		insideRun(t, flags)
	}
}

func insideRun(t *testing.T, flags string) {
	t.Run(strings.ReplaceAll(flags, "/", ":"), func(t *testing.T) {
		t.Parallel()
		compare(t, func(t *testing.T, s *subject) { s.see(t, strings.Fields(flags)...) })
	})
}
