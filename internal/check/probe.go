package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/userns"
)

// The probe is this program, executed in a new user namespace under a name of
// its own. Its ids are mapped while it waits for the end of its standard input;
// then it prints a Probe as JSON.
const (
	probeName = "rootlesskit-check"
	// mappedName is the probe executed once more, as a mapped root: the
	// kernel takes ambient capabilities from a binary with file capabilities.
	mappedName   = "rootlesskit-check-mapped"
	probeTimeout = 10 * time.Second
)

// Probe is what happened: each is an error's text, empty where it worked. A
// step after one that failed is not reached.
type Probe struct {
	Started    string `json:"-"` // a process in a user namespace
	IDMap      string `json:"-"` // its ids
	Namespaces string // mount and network namespaces inside, and a mount
	TAP        string // a TAP device
	NFTables   string // a request to nf_tables
}

// IsProbe tells that this process is to call ProbeMain.
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, AmbientCaps: userns.AllCaps()}
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
	if err != nil {
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
		if has, err := userns.Effective(unix.CAP_SYS_ADMIN); err == nil && !has {
			fmt.Fprintln(os.Stderr, syscall.Exec("/proc/self/exe", []string{mappedName}, os.Environ()))
			return 1
		}
	}
	runtime.LockOSThread() // unshare is about a thread
	if err := json.NewEncoder(os.Stdout).Encode(tryAll()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func tryAll() (p Probe) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	p.Namespaces = text(tryNamespaces())
	if p.Namespaces == "" {
		p.TAP, p.NFTables = text(tryTAP()), text(tryNFTables())
	}
	return p
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

func tryTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("tap0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	return nil
}

// tryNFTables asks nf_tables for its generation (NFT_MSG_GETGEN). A kernel
// without answers EINVAL, nfnetlink's word for a subsystem that it does not have.
func tryNFTables() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("socket of netfilter: %w", err)
	}
	defer unix.Close(fd)
	request := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	request = binary.NativeEndian.AppendUint16(request, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST)
	request = append(request, make([]byte, 8)...) // sequence, port
	request = append(request, make([]byte, 4)...) // nfgenmsg
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("request to nf_tables: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("answer of nf_tables: %w", err)
	}
	if n >= unix.NLMSG_HDRLEN+4 && binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
			return fmt.Errorf("nf_tables: %w", unix.Errno(-errno))
		}
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
		return bad(name, Error, fix, "a user namespace without privileges inside: %s", p.Namespaces)
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

func (p Probe) nfTables() Result {
	const name = "nf_tables"
	switch {
	case p.Started != "" || p.IDMap != "" || p.Namespaces != "":
		return bad(name, Warning, "first make user namespaces work", "unknown without a user namespace")
	case p.NFTables != "":
		return bad(name, Warning, "sudo modprobe nf_tables; or install iptables", "%s: without, servers inside may not see the address of clients", p.NFTables)
	}
	return ok(name, "works in a user namespace")
}
