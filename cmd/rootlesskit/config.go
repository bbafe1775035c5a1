package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/launch"
	"rootlesskit/internal/mounts"
	"rootlesskit/internal/userns"
)

const copyUpMode = "tmpfs+symlink"

// config turns the flags into the run's configuration. It finds every error in
// them, before anything is touched.
func (a *app) config(c *cli.Command) (launch.Config, error) {
	cfg := launch.Config{
		Command:         a.command,
		StateDir:        c.String("state-dir"),
		DetachNetns:     c.Bool("detach-netns"),
		Propagation:     c.String("propagation"),
		CopyUp:          c.StringSlice("copy-up"),
		PIDNS:           c.Bool("pidns"),
		CgroupNS:        c.Bool("cgroupns"),
		UTSNS:           c.Bool("utsns"),
		IPCNS:           c.Bool("ipcns"),
		EvacuateCgroup2: c.String("evacuate-cgroup2"),
		Inherited:       a.inherited,
		Debug:           c.Bool("debug"),
		Log:             a.newLog(c.Bool("debug")),
	}
	for _, step := range []func(*cli.Command, *launch.Config) error{
		processConfig, notifyConfig, mountConfig, a.chooseDrivers, a.checkDrivers, a.networkConfig, a.portConfig,
	} {
		if err := step(c, &cfg); err != nil {
			return launch.Config{}, err
		}
	}
	return cfg, nil
}

func processConfig(c *cli.Command, cfg *launch.Config) (err error) {
	if cfg.SubIDSource, err = userns.ParseSource(c.String("subid-source")); err != nil {
		return fmt.Errorf("failed to setup UID/GID map: failed to compute uid/gid map: %w", err)
	}
	if cfg.EvacuateCgroup2 != "" {
		if !cfg.CgroupNS {
			return errors.New("evacuate-cgroup2 requires --cgroupns")
		}
		if !cfg.PIDNS {
			return errors.New("evacuate-cgroup2 requires --pidns")
		}
		if name := cfg.EvacuateCgroup2; name == "." || name == ".." || strings.Contains(name, "/") {
			return fmt.Errorf("evacuate-cgroup2 must be the name of a sub-cgroup, not a path, got %q", name)
		}
	}
	switch mode := c.String("reaper"); mode {
	case "auto", "":
		cfg.Reaper = cfg.PIDNS
	case "true":
		if !cfg.PIDNS {
			return errors.New("reaper requires --pidns")
		}
		cfg.Reaper = true
	case "false":
	default:
		return fmt.Errorf("unknown reaper mode: %s", mode)
	}
	return nil
}

// notifyConfig decides who tells the service manager that the service is ready.
// A command that does so itself (dockerd) becomes ready later than the ports,
// so it has precedence unless the user says otherwise.
func notifyConfig(c *cli.Command, cfg *launch.Config) error {
	switch mode := c.String("sdnotify"); mode {
	case "command", "":
	case "launcher":
		cfg.NotifySocket = os.Getenv("NOTIFY_SOCKET")
	default:
		return fmt.Errorf("unknown sdnotify mode: %q (expected command or launcher)", mode)
	}
	return nil
}

func mountConfig(c *cli.Command, cfg *launch.Config) error {
	if mode := c.String("copy-up-mode"); mode != copyUpMode && mode != "" {
		return fmt.Errorf("unknown copy-up mode: %s", mode)
	}
	if !mounts.KnownPropagation(cfg.Propagation) {
		cfg.Log.Warn("unknown propagation, ignoring it", "propagation", cfg.Propagation)
	}
	if len(cfg.CopyUp) > 0 && mounts.IsShared(cfg.Propagation) {
		return fmt.Errorf("propagation %s does not support copy-up driver %s", cfg.Propagation, copyUpMode)
	}
	return mounts.CheckCopyUp(cfg.CopyUp)
}
