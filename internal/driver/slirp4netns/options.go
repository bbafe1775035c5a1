package slirp4netns

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
)

// options are the driver's own flags, validated.
type options struct {
	binary           *helper.Binary
	sandbox, seccomp bool
}

func newOptions(cfg driver.NetworkConfig, flags driver.Flags) (options, error) {
	// The modes are checked first, since that needs no program.
	sandbox, seccomp := flags.String(sandboxFlag), flags.String(seccompFlag)
	for _, f := range []struct{ name, mode string }{{sandboxFlag, sandbox}, {seccompFlag, seccomp}} {
		switch f.mode {
		case "auto", "true", "false", "":
		default:
			return options{}, fmt.Errorf("unsupported %s mode: %q", f.name, f.mode)
		}
	}
	if sandbox == "true" && cfg.Detached {
		return options{}, errors.New("--slirp4netns-sandbox conflicts with --detach-netns (https://github.com/rootless-containers/slirp4netns/issues/317)")
	}
	binary, err := helper.Probe(flags.String(binaryFlag))
	if err != nil {
		return options{}, err
	}
	if lacks := binary.Lacks("--ready-fd", "--exit-fd", "--cidr", "--disable-host-loopback", "--api-socket", "--userns-path", "--netns-type", "--enable-ipv6"); lacks != "" {
		return options{}, fmt.Errorf("slirp4netns seems older than v0.4.0: %s has no %s", binary.Path, lacks)
	}
	o := options{binary: binary}
	if o.sandbox, err = choose(sandbox, binary, "--enable-sandbox", !cfg.Detached && resolvConfInSandbox()); err != nil {
		return options{}, err
	}
	o.seccomp, err = choose(seccomp, binary, "--enable-seccomp", kernelHasSeccomp())
	return o, err
}

// choose decides whether to use an option: its flag says so, or, with auto,
// whether it works.
func choose(mode string, b *helper.Binary, option string, works bool) (bool, error) {
	switch mode {
	case "auto":
		return works && b.Has(option), nil
	case "true":
		if !b.Has(option) {
			return false, fmt.Errorf("%s has no %s", b.Path, option)
		}
		return true, nil
	}
	return false, nil
}

// resolvConfInSandbox reports whether the sandbox can read /etc/resolv.conf: it
// only has /etc and /run (slirp4netns(1), --enable-sandbox).
func resolvConfInSandbox() bool {
	path, err := filepath.EvalSymlinks("/etc/resolv.conf")
	return err == nil && (strings.HasPrefix(path, "/etc/") || strings.HasPrefix(path, "/run/"))
}

// kernelHasSeccomp passes an invalid filter address: only a kernel with filters
// reports the bad address (seccomp(2)).
func kernelHasSeccomp() bool {
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0)
	return errors.Is(err, unix.EFAULT)
}

// args are the program's options that do not change between starts.
func (o *options) args(cfg driver.NetworkConfig) []string {
	args := []string{"--mtu=" + strconv.Itoa(cfg.MTU), "--cidr=" + cfg.CIDR.String()}
	for _, option := range []struct {
		name   string
		wanted bool
	}{
		{"--disable-host-loopback", cfg.DisableHostLoopback},
		{"--enable-ipv6", cfg.IPv6},
		{"--enable-sandbox", o.sandbox},
		{"--enable-seccomp", o.seccomp},
	} {
		if option.wanted {
			args = append(args, option.name)
		}
	}
	return args
}
