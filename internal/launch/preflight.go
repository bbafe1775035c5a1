package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/ports"
)

// Preflight tries the parts of a run that need no namespaces: the state
// directory, the directories to copy up, the ports to publish. It returns the
// errors that Run would fail with, and leaves everything unchanged.
func Preflight(ctx context.Context, cfg Config) []error {
	var problems []error
	for _, err := range []error{tryStateDir(ctx, cfg), tryCopyUp(cfg.CopyUp), tryPorts(ctx, cfg)} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

func tryStateDir(ctx context.Context, cfg Config) error {
	s, err := newStateDir(cfg.StateDir)
	if err != nil {
		return err
	}
	defer s.close()
	_, statErr := os.Lstat(s.path)
	made := s.temporary || errors.Is(statErr, os.ErrNotExist)
	_, statErr = os.Lstat(s.file(lockName))
	if err := s.acquire(ctx, cfg.Log); err != nil {
		if made {
			_ = unix.Rmdir(s.path)
		}
		return err
	}
	if made {
		return s.remove()
	}
	if errors.Is(statErr, os.ErrNotExist) {
		return s.root.Remove(lockName)
	}
	return nil
}

func tryCopyUp(dirs []string) error {
	for _, dir := range dirs {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			_, err = os.ReadDir(real)
		}
		if err != nil {
			return fmt.Errorf("copy-up of %s: %w", dir, err)
		}
	}
	return nil
}

// tryPorts publishes the ports on the host, with nothing behind them. It accepts
// that the ports of socket activation are already in use.
func tryPorts(ctx context.Context, cfg Config) error {
	if cfg.Ports == nil || activatedParent() {
		return nil
	}
	table := ports.New(hostOnly{cfg.Ports})
	var problem error
	for _, spec := range cfg.Publish {
		if problem = publish(ctx, table, spec); problem != nil {
			break
		}
	}
	return errors.Join(problem, table.CloseAll())
}

// hostOnly is a port driver without a namespace. It represents any driver,
// since the protocols of a driver are known only once it has started.
type hostOnly struct{ driver.Ports }

func (hostOnly) Info() api.PortDriverInfo {
	return api.PortDriverInfo{Protos: []api.Proto{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"}}
}

func (hostOnly) Forward(_ context.Context, spec api.PortSpec) (io.Closer, error) {
	fds, err := hostsock.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	return listening(fds), err
}

type listening []int

func (l listening) Close() error {
	closeFDs(l)
	return nil
}
