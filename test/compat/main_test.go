// Package compat compares this implementation with the original, v3.3.0: what a
// command sees through both, what clients are told, what users read. The original
// is a black box; "make test-compat" builds it. A difference fails unless it is
// listed, with the reason, in differences_test.go.
package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

const (
	upstreamEnv = "ROOTLESSKIT_UPSTREAM"   // a directory with the original's programs
	binEnv      = "ROOTLESSKIT_COMPAT_BIN" // a directory with both programs and the probe

	// supplementary is the number of a group that the tests are in beside their own.
	supplementary = 42424
)

// shipTags is SHIP_TAGS of the Makefile.
const shipTags = "urfave_cli_no_template,nethttpomithttp2,purego"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	upstream := os.Getenv(upstreamEnv)
	if upstream == "" {
		fmt.Println("The original's programs are needed: make test-compat")
		return 0, nil
	}
	if os.Getenv(binEnv) != "" {
		return runTests(m), nil
	}
	dir, err := os.MkdirTemp("", "rootlesskit-compat")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := fill(dir, upstream); err != nil {
		return 0, err
	}
	os.Setenv(binEnv, dir)
	if os.Geteuid() != 0 {
		return runTests(m), nil
	}
	return runAsTestUser()
}

func runTests(m *testing.M) int {
	if r, w, err := os.Pipe(); err == nil { // Go's runtime opens its epoll descriptors now
		r.Close()
		w.Close()
	}
	before := nstest.OpenFDs()
	code := m.Run()
	if leaked := nstest.LeakedFDs(before); code == 0 && len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "file descriptors left open by the tests: %v\n", leaked)
		code = 1
	}
	return code
}

// runAsTestUser runs this test binary again as the test user, who is in a
// supplementary group.
func runAsTestUser() (int, error) {
	// go test keeps its binary in a directory that only root can enter, so it
	// is executed through a descriptor.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	defer self.Close()
	cmd := &exec.Cmd{Path: fmt.Sprintf("/proc/self/fd/%d", self.Fd()), Stdout: os.Stdout, Stderr: os.Stderr}
	for _, arg := range os.Args {
		if !strings.HasPrefix(arg, "-test.testlogfile=") { // only root can write it
			cmd.Args = append(cmd.Args, arg)
		}
	}
	if err := nstest.AsTestUser(cmd); err != nil {
		return 0, err
	}
	cmd.SysProcAttr.Credential.Groups = []uint32{supplementary}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// fill builds what is compared, and the probe, where every user can execute them.
func fill(dir, upstream string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"upstream", "here"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range programs {
		b, err := os.ReadFile(filepath.Join(upstream, name))
		if err != nil {
			return fmt.Errorf("the original's programs are not in $%s: %w", upstreamEnv, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "upstream", name), b, 0o755); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{dir + "/here/", "../../cmd/..."}, {dir + "/probe", "./testdata/probe"}} {
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-tags=" + shipTags, "-o"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building the programs: %w\n%s", err, out)
		}
	}
	return fillForGroup(filepath.Join(dir, "group-file"))
}

// fillForGroup makes a file that only the supplementary group may read.
func fillForGroup(name string) error {
	if err := os.WriteFile(name, []byte("for the group\n"), 0o640); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil // the user's own
	}
	return os.Chown(name, 0, supplementary)
}

var programs = []string{"rootlesskit", "rootlessctl", "rootlesskit-docker-proxy"}

func inBin(name string) string { return filepath.Join(os.Getenv(binEnv), name) }
