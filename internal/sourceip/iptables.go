package sourceip

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/netns"
)

// iptables makes the marks with the programs iptables and ip6tables, if there
// is no nf_tables.
type iptables struct{ ns *netns.Namespace }

func (iptables) name() string { return "iptables" }

// usable implements backend. The program's errors do not name the modules that it lacks.
func (t iptables) usable() error {
	err := t.run("", "iptables", "-w", "-t", "mangle", "-S", "OUTPUT")
	if err == nil {
		return nil
	}
	if lacks := kernel.IPTables.Check(); lacks != nil {
		return fmt.Errorf("%w; %w", err, lacks)
	}
	return err
}

// iptablesScript fills RootlessKit's chains in the table mangle, with the rules
// that nft.go explains. iptables-restore replaces them in one transaction.
const iptablesScript = `*mangle
:ROOTLESSKIT-OUTPUT - [0:0]
:ROOTLESSKIT-PREROUTING - [0:0]
-A ROOTLESSKIT-OUTPUT -o lo -j CONNMARK --set-xmark MARK/MARK
-A ROOTLESSKIT-OUTPUT -o lo -j RETURN
-A ROOTLESSKIT-OUTPUT -m connmark --mark MARK/MARK -m addrtype --src-type LOCAL -j MARK --set-xmark MARK/MARK
-A ROOTLESSKIT-OUTPUT -m conntrack --ctstate NEW -m addrtype ! --src-type LOCAL -j CONNMARK --set-xmark MARK/MARK
-A ROOTLESSKIT-PREROUTING ! -i lo -m connmark --mark MARK/MARK -j MARK --set-xmark MARK/MARK
COMMIT
`

// ensure implements backend. Flushing the table empties these chains as well as
// those that jump to them, so checking the jumps is enough.
func (t iptables) ensure(af int) error {
	program := "iptables"
	if af == unix.AF_INET6 {
		program = "ip6tables"
	}
	var missing []string
	for _, hook := range []string{"OUTPUT", "PREROUTING"} {
		if t.run("", program, "-w", "-t", "mangle", "-C", hook, "-j", "ROOTLESSKIT-"+hook) != nil {
			missing = append(missing, hook)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	script := strings.ReplaceAll(iptablesScript, "MARK/MARK", fmt.Sprintf("%#x/%#x", markBit, markBit))
	if err := t.run(script, program+"-restore", "-w", "--noflush"); err != nil {
		return err
	}
	for _, hook := range missing {
		if err := t.run("", program, "-w", "-t", "mangle", "-A", hook, "-j", "ROOTLESSKIT-"+hook); err != nil {
			return err
		}
	}
	return nil
}

func (t iptables) run(stdin, program string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	lock, err := ownLock()
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
		cmd.ExtraFiles = []*os.File{lock}
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE=/proc/self/fd/3")
	}
	if err := t.ns.Run(cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// xtablesLock keeps two programs of the older iptables from losing each other's
// changes.
const xtablesLock = "/run/xtables.lock"

// ownLock returns a file in memory to lock instead of xtablesLock, if that cannot be
// opened: without --copy-up=/run it belongs to the host's root. Then no other program
// inside can lock it either, and this program runs iptables one at a time. It returns
// nil if there is no need.
func ownLock() (*os.File, error) {
	if os.Getenv("XTABLES_LOCKFILE") != "" {
		return nil, nil
	}
	if shared, err := os.OpenFile(xtablesLock, os.O_RDONLY|os.O_CREATE, 0o600); err == nil {
		return nil, shared.Close()
	}
	fd, err := unix.MemfdCreate("xtables.lock", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a lock for iptables, as %s cannot be opened: %w", xtablesLock, err)
	}
	return os.NewFile(uintptr(fd), "xtables.lock"), nil
}
