package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// TestUser is the ordinary user that tests run as when they start as root.
const TestUser = "rootlesskit-test"

// ExtraGroup is a supplementary group of the test user: without one, tests
// could not see whether groups are kept.
const ExtraGroup = 44444

// runAsTestUser runs this test binary again as the test user and returns its
// exit code.
func runAsTestUser() int {
	code, err := reexecAsTestUser()
	if err != nil {
		fmt.Fprintf(os.Stderr, "running the tests as %s: %v\n", TestUser, err)
		return 1
	}
	return code
}

func reexecAsTestUser() (int, error) {
	// go test keeps its binary in a directory that only root can enter, so it
	// is executed through a descriptor.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	defer self.Close()
	cmd := &exec.Cmd{
		Path:   fmt.Sprintf("/proc/self/fd/%d", self.Fd()),
		Args:   withoutTestLog(os.Args),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	}
	if err := AsTestUser(cmd); err != nil {
		return 0, err
	}
	raiseDescriptorLimit()
	// The tests handle Ctrl-C. If this process ignored it, they would ignore it
	// too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// raiseDescriptorLimit lets tests that need many descriptors raise their limit.
func raiseDescriptorLimit() {
	const enough = 1 << 16
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Max < enough {
		limit.Max = enough
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

// AsTestUser lets root start cmd as the test user, whom it creates if missing.
// The command dies with its parent.
func AsTestUser(cmd *exec.Cmd) error {
	u, err := ensureTestUser()
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	runtimeDir, err := makeRuntimeDir(uid, gid)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Environ(), "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username, "XDG_RUNTIME_DIR="+runtimeDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{ExtraGroup}},
		Pdeathsig:  syscall.SIGKILL,
	}
	return nil
}

// withoutTestLog removes the flag that names a file that only root can write.
func withoutTestLog(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile=")
	})
}

// fuzzing reports whether go test -fuzz runs. Its workers are executed from the
// directory of the test binary, which only root can enter, and write failing
// inputs next to the sources, so it keeps the user that started it.
func fuzzing() bool {
	return slices.ContainsFunc(os.Args, func(a string) bool {
		return strings.HasPrefix(a, "-test.fuzz=") || a == "-test.fuzzworker"
	})
}

// ensureTestUser lets one process after the other look: useradd makes the user before
// it gives them ranges of subordinate ids.
func ensureTestUser() (*user.User, error) {
	lock, err := lockShared("user")
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if u, err := user.Lookup(TestUser); err == nil {
		return u, nil
	}
	out, err := exec.Command("useradd", "--create-home", "--shell", "/bin/sh", TestUser).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("useradd: %w: %s", err, out)
	}
	return user.Lookup(TestUser)
}

func makeRuntimeDir(uid, gid int) (string, error) {
	dir := fmt.Sprintf("/run/user/%d", uid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, uid, gid)
}
