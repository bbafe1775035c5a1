package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/kernel"
	"rootlesskit/internal/userns"
)

// Host is the machine, as the checks see it.
type Host struct {
	// Root is the tree of files, from "/".
	Root fs.FS
	// User is the user of this process, GIDs are all its groups.
	User *user.User
	GIDs []int
	// InPasswd says that /etc/passwd has the user.
	InPasswd bool
	// Program is the path of this program.
	Program string
	// BindService says that the process has CAP_NET_BIND_SERVICE.
	BindService bool
	// NeedsTUN says that the chosen network does not work without a TAP device.
	NeedsTUN bool

	// SubIDs looks up the subordinate ids.
	SubIDs func(context.Context) (userns.SubIDs, error)
	// LookPath finds a program, like exec.LookPath.
	LookPath func(string) (string, error)
	// FileCaps reads the attribute security.capability of a file; it fails if the
	// file has none.
	FileCaps func(path string) ([]byte, error)
	// NoSUID reports whether the file system of a file is mounted with nosuid.
	NoSUID func(path string) bool
	// Lacks lists features of newer kernels that this kernel, Release, does not have.
	Release string
	Lacks   func() []*kernel.Feature
	// Probe tries what a run does.
	Probe func(context.Context, userns.SubIDs) Probe
}

// ThisHost returns the machine that this process runs on.
func ThisHost(source userns.Source) (*Host, error) {
	u, err := userns.CurrentUser()
	if err != nil {
		return nil, err
	}
	gids, err := os.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("getgroups: %w", err)
	}
	bind, err := caps.Effective(unix.CAP_NET_BIND_SERVICE)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for the path of this program: %w", err)
	}
	return &Host{
		Program:     program,
		Root:        os.DirFS("/"),
		User:        u,
		InPasswd:    userns.InPasswd(os.Getuid()),
		GIDs:        append(gids, os.Getgid()),
		BindService: bind,
		SubIDs:      func(ctx context.Context) (userns.SubIDs, error) { return userns.LookupSubIDs(ctx, source, u) },
		LookPath:    exec.LookPath,
		FileCaps:    fileCaps,
		NoSUID:      noSUID,
		Release:     kernel.Release(),
		Lacks:       kernel.Missing,
		Probe:       runProbe,
	}, nil
}

func fileCaps(path string) ([]byte, error) {
	b := make([]byte, 64)
	n, err := unix.Getxattr(path, "security.capability", b)
	return b[:max(n, 0)], err
}

func noSUID(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.MS_NOSUID != 0
}

// sysctl reads a setting. It returns false if the kernel does not have it.
func (h *Host) sysctl(key string) (string, bool) {
	b, err := fs.ReadFile(h.Root, "proc/sys/"+strings.ReplaceAll(key, ".", "/"))
	return strings.TrimSpace(string(b)), err == nil
}

// setSysctl returns a fix that sets a sysctl.
func setSysctl(key, value string) string {
	return fmt.Sprintf("echo '%s=%s' | sudo tee -a /etc/sysctl.d/99-rootless.conf && sudo sysctl --system", key, value)
}

func (h *Host) subIDs(ids userns.SubIDs, err error) Result {
	const name, wanted = "subids", 65536
	fix := h.usermodFix()
	uids, gids := total(ids.UIDs), total(ids.GIDs)
	switch {
	case err != nil:
		return bad(name, Error, "correct the line, see subuid(5) and subgid(5)", "%v", err)
	case uids == 0 && gids == 0:
		return bad(name, Warning, fix, "%s has no subordinate ids: only root exists inside, so most containers do not run", h.User.Username)
	case uids == 0 || gids == 0:
		return bad(name, Warning, fix, "%s has %d subordinate uids and %d gids: without both, neither is used", h.User.Username, uids, gids)
	case min(uids, gids) < wanted:
		return bad(name, Warning, fix, "%s has %d subordinate uids and %d gids; container images often need %d", h.User.Username, uids, gids, wanted)
	}
	return ok(name, "%s has %d subordinate uids and %d gids", h.User.Username, uids, gids)
}

// nameless returns the result for a user whose subordinate ids cannot be mapped,
// because the user is in no database.
func (h *Host) nameless(reason string) Result {
	return bad("subids", Warning, fmt.Sprintf("add a line for the user id %s to /etc/passwd", h.User.Uid),
		"/etc/passwd has no user %s, so only the user's own id can be mapped: only root exists inside, and most containers do not run (%s)", h.User.Uid, reason)
}

func total(ranges []userns.Range) (n uint64) {
	for _, r := range ranges {
		n += uint64(r.Count)
	}
	return n
}

// mapTool checks that newuidmap or newgidmap is setuid root or has the file capability.
func (h *Host) mapTool(tool string, capability uint) Result {
	path, err := h.LookPath(tool)
	if err != nil {
		return bad(tool, Error, "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora, Alpine: shadow-uidmap)", "%v", err)
	}
	fix := fmt.Sprintf("sudo chown root %s && sudo chmod u+s %s", path, path)
	st, err := fs.Stat(h.Root, strings.TrimPrefix(path, "/"))
	if err != nil {
		return bad(tool, Error, fix, "%v", err)
	}
	if h.NoSUID(path) {
		return bad(tool, Error, "mount it without nosuid, or install it where that is not set",
			"%s is on a file system mounted with nosuid, where it gets no privilege", path)
	}
	sys, real := st.Sys().(*syscall.Stat_t)
	if st.Mode()&fs.ModeSetuid != 0 && (!real || sys.Uid == 0) {
		return ok(tool, "%s is setuid root", path)
	}
	if b, err := h.FileCaps(path); err == nil && hasFileCap(b, capability) {
		return ok(tool, "%s has the file capability", path)
	}
	return bad(tool, Error, fix, "%s is not setuid root, and has no file capability", path)
}

func (h *Host) noNewPrivs() Result {
	const name = "no-new-privs"
	status, err := fs.ReadFile(h.Root, "proc/self/status")
	if err == nil && strings.Contains(string(status), "NoNewPrivs:\t1") {
		return bad(name, Error, "run without no_new_privs (NoNewPrivileges= of systemd, allowPrivilegeEscalation: of Kubernetes)",
			"no_new_privs is set, so newuidmap cannot get its privilege")
	}
	return ok(name, "programs may gain privileges")
}

func (h *Host) maxUserNamespaces() Result {
	const key = "user.max_user_namespaces"
	v, found := h.sysctl(key)
	switch {
	case !found:
		return bad(key, Error, "use a kernel with CONFIG_USER_NS", "this kernel has no user namespaces")
	case v == "0":
		return bad(key, Error, setSysctl(key, "28633"), "the number of user namespaces is limited to 0")
	}
	return ok(key, "%s", v)
}

// userNamespacesClone checks a sysctl of Debian's and Arch's kernels.
func (h *Host) userNamespacesClone(p Probe) Result {
	const key = "kernel.unprivileged_userns_clone"
	v, found := h.sysctl(key)
	switch {
	case !found:
		return ok(key, "this kernel does not have it")
	case v == "0" && p.Started != "":
		return bad(key, Error, setSysctl(key, "1"), "unprivileged users may not make user namespaces")
	}
	return ok(key, "%s", v)
}

// appArmor checks the restriction that Ubuntu 23.10 introduced.
func (h *Host) appArmor(p Probe) Result {
	const name, key = "apparmor", "kernel.apparmor_restrict_unprivileged_userns"
	v, found := h.sysctl(key)
	switch {
	case !found || v == "0":
		return ok(name, "user namespaces are not restricted")
	case p.Started != "" || p.Namespaces != "":
		return bad(name, Error, "install the AppArmor profile (make install APPARMOR_DIR=/etc/apparmor.d), which names the path of the binary; or "+setSysctl(key, "0"),
			"AppArmor restricts user namespaces of programs without a profile (%s=%s)", key, v)
	}
	return ok(name, "restricts user namespaces, but not those of this program")
}

func (h *Host) tun(p Probe) Result {
	const name = "tun"
	if p.Started != "" || p.IDMap != "" || p.Namespaces != "" {
		return bad(name, Warning, "first make user namespaces work", "unknown without a user namespace")
	}
	if p.TAP == "" {
		return ok(name, "a TAP device can be made")
	}
	status, fix := Warning, "sudo modprobe tun && sudo chmod 0666 /dev/net/tun"
	if h.NeedsTUN {
		status = Error
	}
	if _, err := fs.Stat(h.Root, "dev/net/tun"); errors.Is(err, fs.ErrNotExist) {
		fix = "sudo modprobe tun; inside a container, pass it in (--device=/dev/net/tun)"
	}
	return bad(name, status, fix, "no TAP device, which gvisor-tap-vsock, slirp4netns and pasta need: %s", p.TAP)
}
