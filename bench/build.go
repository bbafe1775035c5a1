package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rootlesskit/internal/nstest"
)

const (
	upstreamVersion = "v3.3.0"
	upstreamPackage = "github.com/rootless-containers/rootlesskit/v3/cmd/rootlesskit"
)

// tools is a directory with the programs of a run. Everyone can read it: the
// test user executes them, and so does the launchers' child.
type tools struct{ dir string }

func (t tools) bench() string               { return filepath.Join(t.dir, "bench") }
func (t tools) launcher(name string) string { return filepath.Join(t.dir, name) }
func (t tools) remove()                     { os.RemoveAll(t.dir) }

// build makes both launchers, with the same settings, and copies this program
// beside them.
func build(ctx context.Context, opts options, moduleDir string) (tools, error) {
	dir, err := os.MkdirTemp("", "rootlesskit-bench-")
	if err != nil {
		return tools{}, err
	}
	t := tools{dir}
	if err := t.fill(ctx, opts, moduleDir); err != nil {
		t.remove()
		return tools{}, err
	}
	return t, nil
}

func (t tools) fill(ctx context.Context, opts options, moduleDir string) error {
	if err := os.Chmod(t.dir, 0o755); err != nil {
		return err
	}
	if err := copyProgram("/proc/self/exe", t.bench()); err != nil {
		return err
	}
	if err := t.addUpstream(ctx, opts.upstream); err != nil {
		return err
	}
	if opts.podman != "" {
		if err := copyProgram(opts.podman, t.launcher(podmanOwn)); err != nil {
			return err
		}
	}
	if err := goCommand(ctx, moduleDir, nil, "build", "-o="+t.launcher(podmanOurs), "./cmd/rootlessport"); err != nil {
		return fmt.Errorf("building rootlessport: %w", err)
	}
	if opts.ours != "" {
		return copyProgram(opts.ours, t.launcher(ours))
	}
	if err := goCommand(ctx, moduleDir, nil, "build", "-o="+t.launcher(ours), "./cmd/rootlesskit"); err != nil {
		return fmt.Errorf("building our launcher (--ours=PATH takes one that is built): %w", err)
	}
	return nil
}

func (t tools) addUpstream(ctx context.Context, path string) error {
	if path == "" {
		var err error
		if path, err = installUpstream(ctx); err != nil {
			return fmt.Errorf("building upstream's launcher (--upstream=PATH takes one that is built): %w", err)
		}
	}
	return copyProgram(path, t.launcher(upstream))
}

// installUpstream builds upstream's launcher once and keeps it in the user's
// cache directory.
func installUpstream(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "rootlesskit-bench", "upstream-"+upstreamVersion)
	path := filepath.Join(bin, filepath.Base(upstreamPackage))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, goCommand(ctx, "", []string{"GOBIN=" + bin}, "install", upstreamPackage+"@"+upstreamVersion)
}

// goCommand builds with the settings of the Makefile.
func goCommand(ctx context.Context, dir string, env []string, verb string, args ...string) error {
	args = append([]string{verb, "-trimpath", "-buildvcs=false", "-ldflags=-s -w"}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), append(env, "CGO_ENABLED=0")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

func moduleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", fmt.Errorf("run this inside the module's directory (go env GOMOD says %q)", mod)
	}
	return filepath.Dir(mod), nil
}

// measureApart runs the measuring process.
func measureApart(ctx context.Context, opts options, t tools) (Results, error) {
	cmd := exec.CommandContext(ctx, t.bench(), append(os.Args[1:], "--measure")...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		if err := nstest.AsTestUser(cmd); err != nil {
			return Results{}, err
		}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM // it has launchers to end
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := outputOf(ctx, opts, t, cmd)
	if ctx.Err() != nil {
		return Results{}, errors.New("interrupted: nothing is recorded")
	}
	if err != nil {
		return Results{}, fmt.Errorf("measuring: %w", err)
	}
	var r Results
	if err := json.Unmarshal(out, &r); err != nil {
		return Results{}, fmt.Errorf("reading what was measured: %w", err)
	}
	return r, nil
}

// outputOf runs the measuring process: on a LAN, where root started it for figures
// that need one.
func outputOf(ctx context.Context, opts options, t tools, cmd *exec.Cmd) (out []byte, err error) {
	figures, _, err := opts.selection()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 || !slices.ContainsFunc(figures, func(f Figure) bool { return f.LAN }) {
		return cmd.Output()
	}
	cmd.Env = append(cmd.Environ(), lanEnv+"=1")
	err = onLAN(ctx, t, func() error {
		out, err = cmd.Output()
		return err
	})
	return out, err
}
