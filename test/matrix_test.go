package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// TestMatrix: every network with every namespace and every reaper. What a run
// promises of processes does not depend on them.
func TestMatrix(t *testing.T) {
	for _, network := range []string{"host", "none", "slirp4netns", "pasta", "gvisor-tap-vsock"} {
		for _, namespaces := range [][]string{
			nil, {"--pidns"}, {"--cgroupns"}, {"--utsns"}, {"--ipcns"}, {"--detach-netns"},
			{"--pidns", "--cgroupns", "--utsns", "--ipcns", "--detach-netns"},
		} {
			reapers := []string{"auto", "false"}
			if slices.Contains(namespaces, "--pidns") {
				reapers = append(reapers, "true")
			}
			for _, reaper := range reapers {
				c := combination{network, namespaces, reaper}
				t.Run(strings.Join(c.flags(), " "), func(t *testing.T) {
					t.Parallel()
					c.testExitCodes(t)
					c.testSignals(t)
					c.testKilledParent(t)
				})
			}
		}
	}
}

type combination struct {
	network    string
	namespaces []string
	reaper     string
}

func (c combination) flags() []string {
	flags := append([]string{"--net=" + c.network, "--reaper=" + c.reaper}, c.namespaces...)
	if c.network != "host" && c.network != "none" { // which would say that it has no meaning
		flags = append(flags, "--disable-host-loopback")
	}
	return flags
}

func (c combination) has(flag string) bool { return slices.Contains(c.namespaces, flag) }

func (c combination) testExitCodes(t *testing.T) {
	for script, code := range map[string]int{"exit 0": 0, "kill -9 $$": 255} {
		if r := runKit(t, append(c.flags(), "sh", "-c", script)...); r.code != code {
			t.Errorf("%s: code %d, want %d: %s", script, r.code, code, r.stderr)
		}
	}
}

// testSignals: each arrives once; orphans are reaped meanwhile.
func (c combination) testSignals(t *testing.T) {
	const script = `
		for s in HUP INT WINCH; do trap "echo got $s" $s; done
		trap "echo got TERM; exit 3" TERM
		for i in 1 2 3; do (sh -c 'exec sleep 0.02' &); done
		readlink /proc/self/ns/pid /proc/self/ns/cgroup /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/net
		echo ready
		while :; do sleep 0.01; done`
	k := startKit(t, append(c.flags(), "sh", "-c", script)...)
	poll(t, "ready", func() bool { return strings.Contains(k.output.String(), "ready\n") })
	c.checkNamespaces(t, k)
	child, err := strconv.Atoi(k.childPID(t))
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the orphans to be reaped", func() bool { return len(nstest.Children(child)) == 1 })
	for _, s := range []struct {
		name   string
		signal unix.Signal
	}{{"HUP", unix.SIGHUP}, {"INT", unix.SIGINT}, {"WINCH", unix.SIGWINCH}, {"TERM", unix.SIGTERM}} {
		if err := unix.Kill(k.Process.Pid, s.signal); err != nil {
			t.Fatal(err)
		}
		poll(t, s.name, func() bool { return strings.Contains(k.output.String(), "got "+s.name+"\n") })
	}
	code := k.await(t)
	arrived := strings.Count("\n"+k.output.String(), "\ngot ") // not where errors quote the command
	if code != 3 || arrived != 4 {
		t.Errorf("code %d: %s", code, k.output)
	}
	if _, err := os.Stat(k.stateDir); !os.IsNotExist(err) {
		t.Errorf("the state directory is left: %v", err)
	}
}

// checkNamespaces compares what the command is in with what it was to be in.
func (c combination) checkNamespaces(t *testing.T, k *kit) {
	t.Helper()
	for name, separate := range map[string]bool{
		"pid": c.has("--pidns"), "cgroup": c.has("--cgroupns"), "uts": c.has("--utsns"), "ipc": c.has("--ipcns"),
		"net": c.network != "host" && !c.has("--detach-netns"),
	} {
		own, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if shared := strings.Contains(k.output.String(), own+"\n"); shared == separate {
			t.Errorf("namespace %s: shared with the host is %v: %s", name, shared, k.output)
		}
	}
	inode, err := os.Stat(filepath.Join("/proc", k.childPID(t), "root", k.stateDir, "netns"))
	if c.has("--detach-netns") != (err == nil) || err == nil && inode.Size() != 0 {
		t.Errorf("$ROOTLESSKIT_STATE_DIR/netns: %v", err)
	}
}

// testKilledParent: nothing outlives a SIGKILL, neither the command's processes
// nor a helper.
func (c combination) testKilledParent(t *testing.T) {
	k := startKit(t, append(c.flags(), "sh", "-c", "setsid sleep 8640 & (setsid sleep 8640 &); exec sleep 8640")...)
	var below []int
	poll(t, "the command's processes", func() bool {
		below = nstest.Descendants(k.Process.Pid)
		return len(slices.DeleteFunc(slices.Clone(below), func(pid int) bool { return commandLine(pid) != "sleep 8640 " })) == 3
	})
	if err := k.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the end of all", func() bool {
		return !slices.ContainsFunc(below, func(pid int) bool { return commandLine(pid) != "" })
	})
	if r := runKit(t, append(c.flags(), "--state-dir="+k.stateDir, "true")...); r.code != 0 {
		t.Errorf("the next run in the same state directory: code %d: %s", r.code, r.stderr)
	}
}

// commandLine is empty for a process that has ended, reaped or not.
func commandLine(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(b), "\x00", " ")
}
