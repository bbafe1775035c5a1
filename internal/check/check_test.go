package check

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/userns"
)

// fitHost is a host on which everything works.
func fitHost() *Host {
	return &Host{
		Root: fstest.MapFS{
			"usr/bin/newuidmap":                                     {Mode: 0o755 | fs.ModeSetuid},
			"usr/bin/newgidmap":                                     {Mode: 0o755 | fs.ModeSetuid},
			"dev/net/tun":                                           {Mode: 0o666 | fs.ModeDevice},
			"proc/self/status":                                      {Data: []byte("Name:\tx\nNoNewPrivs:\t0\n")},
			"proc/sys/user/max_user_namespaces":                     {Data: []byte("100\n")},
			"proc/sys/net/ipv4/ip_unprivileged_port_start":          {Data: []byte("80\n")},
			"proc/sys/net/ipv4/ping_group_range":                    {Data: []byte("0\t2147483647\n")},
			"proc/sys/kernel/unprivileged_userns_clone":             {Data: []byte("1\n")},
			"proc/sys/kernel/apparmor_restrict_unprivileged_userns": {Data: []byte("0\n")},
		},
		User:     &user.User{Username: "alice"},
		GIDs:     []int{1000},
		InPasswd: true,
		Program:  "/usr/bin/rootlesskit",
		SubIDs:   subIDs(65536, 65536),
		LookPath: func(name string) (string, error) { return "/usr/bin/" + name, nil },
		FileCaps: func(string) ([]byte, error) { return nil, errors.New("none") },
		NoSUID:   func(string) bool { return false },
		Release:  "5.10.0",
		Lacks:    func() []*kernel.Feature { return nil },
		Probe:    func(context.Context, userns.SubIDs) Probe { return Probe{} },
	}
}

func subIDs(uids, gids uint32) func(context.Context) (userns.SubIDs, error) {
	var ids userns.SubIDs
	if uids > 0 {
		ids.UIDs = []userns.Range{{Start: 100000, Count: uids}}
	}
	if gids > 0 {
		ids.GIDs = []userns.Range{{Start: 100000, Count: gids}}
	}
	return func(context.Context) (userns.SubIDs, error) { return ids, nil }
}

func (h *Host) set(path, text string) {
	h.Root.(fstest.MapFS)[path] = &fstest.MapFile{Data: []byte(text)}
}

func (h *Host) probes(p Probe) {
	h.Probe = func(context.Context, userns.SubIDs) Probe { return p }
}

func TestFitHost(t *testing.T) {
	report := NewReport(fitHost().Results(t.Context()))
	for _, r := range report.Results {
		if r.Status != OK || r.Fix != "" || r.Message == "" {
			t.Errorf("%+v", r)
		}
	}
	if !report.OK || len(report.Results) != 14 {
		t.Errorf("ok=%v, %d results", report.OK, len(report.Results))
	}
}

// capSetuidAttr is the extended attribute of a program with cap_setuid.
var capSetuidAttr = []byte{1, 0, 0, 2, 1 << capSetuid, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// obstacles are ways to spoil a host, and what is said of it.
var obstacles = []struct {
	name    string
	spoil   func(*Host)
	status  Status
	message string
	fix     string
}{
	{"subids", func(h *Host) { h.SubIDs = subIDs(0, 0) }, Warning, "alice has no subordinate ids", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice"},
	{"subids", func(h *Host) {
		h.SubIDs = subIDs(0, 0)
		h.set("etc/subuid", "bob:100000:65536\ncarol:231072:65536\n# x\nbad:y:z\n")
		h.set("etc/subgid", "bob:100000:65536\n")
	}, Warning, "alice has no subordinate ids", "sudo usermod --add-subuids 296608-362143 --add-subgids 165536-231071 alice"},
	{"subids", func(h *Host) { h.SubIDs = subIDs(65536, 0) }, Warning, "65536 subordinate uids and 0 gids", "usermod"},
	{"subids", func(h *Host) { h.SubIDs = subIDs(65536, 1000) }, Warning, "1000 gids", "usermod"},
	{"subids", func(h *Host) {
		h.SubIDs = func(context.Context) (userns.SubIDs, error) {
			return userns.SubIDs{}, errors.New("/etc/subuid: line 1")
		}
	}, Error, "/etc/subuid: line 1", "subuid(5)"},
	{"newuidmap", func(h *Host) { h.LookPath = func(name string) (string, error) { return "", exec.ErrNotFound } }, Error, "not found", "uidmap"},
	{"newuidmap", func(h *Host) { h.set("usr/bin/newuidmap", "") }, Error, "not setuid root", "chmod u+s /usr/bin/newuidmap"},
	{"newuidmap", func(h *Host) {
		h.set("usr/bin/newuidmap", "")
		h.FileCaps = func(string) ([]byte, error) { return capSetuidAttr, nil }
	}, OK, "file capability", ""},
	{"newuidmap", func(h *Host) { h.NoSUID = func(path string) bool { return path == "/usr/bin/newuidmap" } }, Error, "mounted with nosuid", "without nosuid"},
	{"newgidmap", func(h *Host) {
		h.set("usr/bin/newgidmap", "")
		h.FileCaps = func(string) ([]byte, error) { return capSetuidAttr, nil } // the other's
	}, Error, "not setuid root", "chmod u+s /usr/bin/newgidmap"},
	{"no-new-privs", func(h *Host) { h.set("proc/self/status", "NoNewPrivs:\t1\n") }, Error, "no_new_privs", "NoNewPrivileges"},
	{"user.max_user_namespaces", func(h *Host) { h.set("proc/sys/user/max_user_namespaces", "0\n") }, Error, "limited to 0", "user.max_user_namespaces="},
	{"user.max_user_namespaces", func(h *Host) { delete(h.Root.(fstest.MapFS), "proc/sys/user/max_user_namespaces") }, Error, "no user namespaces", "CONFIG_USER_NS"},
	{"kernel.unprivileged_userns_clone", func(h *Host) {
		h.set("proc/sys/kernel/unprivileged_userns_clone", "0\n")
		h.probes(Probe{Started: "operation not permitted"})
	}, Error, "may not", "kernel.unprivileged_userns_clone=1"},
	{"apparmor", func(h *Host) {
		h.set("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
		h.probes(Probe{Namespaces: "unshare: operation not permitted"})
	}, Error, "AppArmor restricts", "install the AppArmor profile"},
	{"apparmor", func(h *Host) { h.set("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n") }, OK, "not those of this program", ""},
	{"user-namespaces", func(h *Host) { h.probes(Probe{Started: "no space left on device"}) }, Error, "no space left", "seccomp"},
	{"user-namespaces", func(h *Host) { h.probes(Probe{Namespaces: "unshare: EPERM"}) }, Error, "unshare: EPERM", "seccomp"},
	{"id-map", func(h *Host) { h.probes(Probe{IDMap: "newuidmap 1 0: failed"}) }, Error, "newuidmap 1 0", "/etc/subuid"},
	{"tun", func(h *Host) { h.probes(Probe{TAP: "permission denied"}) }, Warning, "permission denied", "chmod 0666"},
	{"tun", func(h *Host) { h.probes(Probe{TAP: "x"}); h.NeedsTUN = true }, Error, "no TAP", "modprobe tun"},
	{"tun", func(h *Host) {
		h.probes(Probe{TAP: "no such file"})
		delete(h.Root.(fstest.MapFS), "dev/net/tun")
	}, Warning, "no such file", "--device=/dev/net/tun"},
	{"nf_tables", func(h *Host) { h.probes(Probe{NFTables: "invalid argument"}) }, OK, "iptables works", ""},
	{"nf_tables", func(h *Host) { h.probes(Probe{NFTables: "invalid argument", IPTables: "protocol not available"}) }, Warning,
		"invalid argument; iptables does not work either (protocol not available)",
		"sudo modprobe nf_tables; or install iptables and sudo modprobe -a ip_tables iptable_mangle ip6_tables ip6table_mangle"},
	{"nf_tables", func(h *Host) {
		h.probes(Probe{NFTables: "invalid argument"})
		h.LookPath = func(name string) (string, error) {
			if name == "iptables" {
				return "", exec.ErrNotFound
			}
			return "/usr/bin/" + name, nil
		}
	}, Warning, "not found in $PATH", "install iptables"},
	{"kernel", func(h *Host) { h.Lacks = func() []*kernel.Feature { return []*kernel.Feature{kernel.LandlockTCP} } }, OK,
		"Linux 5.10.0 lacks Landlock for TCP (Linux 6.7)", ""},
	{"privileged-ports", func(h *Host) { h.set("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n") }, Warning, "below 1024", "setcap cap_net_bind_service=ep /usr/bin/rootlesskit"},
	{"privileged-ports", func(h *Host) {
		h.set("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n")
		h.BindService = true
	}, OK, "all ports", ""},
	{"ping", func(h *Host) { h.set("proc/sys/net/ipv4/ping_group_range", "1\t0\n") }, Warning, "no group of alice", "ping_group_range=0 2147483647"},
}

// TestObstacles spoils one thing at a time.
func TestObstacles(t *testing.T) {
	for _, tt := range obstacles {
		h := fitHost()
		tt.spoil(h)
		results := h.Results(t.Context())
		i := slices.IndexFunc(results, func(r Result) bool { return r.Name == tt.name })
		if i < 0 {
			t.Errorf("no result %s in %+v", tt.name, results)
			continue
		}
		r := results[i]
		if r.Status != tt.status || !strings.Contains(r.Message, tt.message) || !strings.Contains(r.Fix, tt.fix) || (r.Status == OK) != (r.Fix == "") {
			t.Errorf("got  %+v\nwant %s %q, fix %q", r, tt.status, tt.message, tt.fix)
		}
		if report := NewReport(results); tt.status == Error && report.OK {
			t.Errorf("%s: the report is ok in spite of an error", tt.name)
		}
	}
}

// TestNamelessUser: a user of no database has what a run gives: the own id.
func TestNamelessUser(t *testing.T) {
	h := fitHost()
	h.InPasswd, h.User.Uid = false, "1000770000"
	h.Probe = func(_ context.Context, ids userns.SubIDs) (p Probe) {
		if len(ids.UIDs) > 0 {
			p.IDMap = "newuidmap failed: cannot determine your user name"
		}
		return p
	}
	results := h.Results(t.Context())
	if r := results[0]; r.Name != "subids" || r.Status != Warning || !strings.Contains(r.Message, "no user 1000770000") || !strings.Contains(r.Message, "your user name") || !strings.Contains(r.Fix, "/etc/passwd") {
		t.Errorf("%+v", r)
	}
	if report := NewReport(results); !report.OK {
		t.Errorf("a run works, the report says %+v", results)
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	NewReport([]Result{
		{Name: "a", Status: OK, Message: "fine"},
		{Name: "b", Status: Warning, Message: "poor", Fix: "mend it"},
	}).Print(&b)
	want := "ok       a: fine\nwarning  b: poor\n         fix: mend it\n"
	if b.String() != want {
		t.Errorf("printed\n%swant\n%s", &b, want)
	}
}

func FuzzHasFileCap(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0}, uint(capSetuid))
	f.Add([]byte{}, uint(40))
	f.Fuzz(func(t *testing.T, attr []byte, capability uint) {
		if hasFileCap(attr, capability) && len(attr) < 12 {
			t.Error("a capability out of a short attribute")
		}
	})
}
