package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/kernel"
	"rootlesskit/internal/userns"
)

// The probe is this program, executed in a new user namespace under a name of
// its own. Its ids are mapped while it waits for the end of its standard input.
// Then it prints a Probe as JSON.
const (
	probeName = "rootlesskit-check"
	// mappedName is argv[0] of the probe when it is executed again, as a mapped
	// root: the kernel drops ambient capabilities if the binary has file
	// capabilities.
	mappedName   = "rootlesskit-check-mapped"
	probeTimeout = time.Minute // modules may have to be loaded
)

// Probe is the outcome of each step: the text of an error, or empty if the step
// worked. The steps after a failure are not reached.
type Probe struct {
	Started    string `json:"-"` // a process in a user namespace
	IDMap      string `json:"-"` // its ids
	Namespaces string // mount and network namespaces inside, and a mount
	TAP        string // a TAP device
	NFTables   string // a request to nf_tables
	IPTables   string // a request to the older iptables
}

// IsProbe reports whether this process must call ProbeMain.
func IsProbe(args []string) bool {
	return len(args) > 0 && (args[0] == probeName || args[0] == mappedName)
}

// runProbe starts the probe and maps its ids.
func runProbe(ctx context.Context, ids userns.SubIDs) Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, AmbientCaps: caps.All()}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return Probe{Started: err.Error()}
	}
	if err := cmd.Start(); err != nil {
		return Probe{Started: err.Error()}
	}
	p := Probe{}
	if err := userns.NewIDMap(os.Getuid(), os.Getgid(), ids).Write(ctx, cmd.Process.Pid); err != nil {
		p.IDMap = err.Error()
		cancel()
	}
	stdin.Close()
	err = cmd.Wait()
	if p.IDMap != "" {
		return p
	}
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &p)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		p.Started = fmt.Sprintf("the process that tried it did not end within %v", probeTimeout)
	case err != nil:
		p.Started = strings.TrimSpace(fmt.Sprintf("%v %s", err, &stderr))
	}
	return p
}

// ProbeMain is the probe's main function; it returns the exit code.
func ProbeMain(args []string) int {
	if args[0] == probeName {
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if has, err := caps.Effective(unix.CAP_SYS_ADMIN); err == nil && !has {
			fmt.Fprintln(os.Stderr, syscall.Exec("/proc/self/exe", []string{mappedName}, os.Environ()))
			return 1
		}
	}
	runtime.LockOSThread() // unshare affects only the calling thread
	if err := json.NewEncoder(os.Stdout).Encode(tryAll()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func tryAll() (p Probe) {
	if err := tryNamespaces(); err != nil {
		p.Namespaces = err.Error()
	}
	if p.Namespaces == "" {
		p.TAP, p.NFTables, p.IPTables = reason(kernel.TUN), reason(kernel.NFTables), reason(kernel.IPTables)
	}
	return p
}

// reason says, in a few words, why the kernel does not have a feature; empty if it
// has it.
func reason(f *kernel.Feature) string {
	if err := errors.Unwrap(f.Check()); err != nil {
		return err.Error()
	}
	return ""
}

func tryNamespaces() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount of / as slave: %w", err)
	}
	if err := unix.Mount("none", "/tmp", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount of a tmpfs: %w", err)
	}
	return nil
}

func (p Probe) userNamespaces() Result {
	const name = "user-namespaces"
	const fix = "see the other lines; inside a container, its seccomp profile has to allow clone, unshare and mount"
	switch {
	case p.Started != "":
		return bad(name, Error, fix, "no user namespace: %s", p.Started)
	case p.Namespaces != "":
		return bad(name, Error, fix, "a user namespace can be made, but gives no privileges inside: %s", p.Namespaces)
	case p.IDMap != "":
		return ok(name, "can be made")
	}
	return ok(name, "can be made, with mount and network namespaces inside")
}

func (p Probe) idMap() Result {
	const name = "id-map"
	switch {
	case p.Started != "":
		return bad(name, Warning, "first make user namespaces work", "unknown without a user namespace")
	case p.IDMap != "":
		return bad(name, Error, "see the lines of subids, newuidmap and newgidmap; the ranges must be those of /etc/subuid and /etc/subgid", "%s", p.IDMap)
	}
	return ok(name, "the ids can be mapped")
}
