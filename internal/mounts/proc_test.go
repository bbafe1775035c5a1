package mounts_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/mounts"
	"rootlesskit/internal/nstest"
)

// stageEnv says what this binary is to do in place of the tests.
const stageEnv = "MOUNTS_TEST_STAGE"

func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "":
		nstest.Main(m)
	case "container":
		report(container())
	case "sys":
		report(sysStage())
	case "cgroup2":
		report(cgroup2Stage())
	case "copyup":
		report(copyUpStage())
	case "proc":
		readOnly, err := mounts.Proc()
		report(fmt.Sprintf("read-only: %v, mounts below: %q", readOnly, tmpfsAt(binfmt)), err)
	}
}

// binfmt is a directory of /proc that file systems are mounted on.
const binfmt = "/proc/sys/fs/binfmt_misc"

func tmpfsAt(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC {
		return path
	}
	return ""
}

func report(text string, err error) {
	if err != nil {
		text = err.Error()
	}
	fmt.Print(text)
	os.Exit(0)
}

// container is a mount namespace whose /proc is as PROC_IS says; a user
// namespace below it cannot change that.
func container() (string, error) {
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
		on                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, os.Getenv("PROC_IS")},
		{"", "/proc", "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, "read-only"},
		{"none", "/proc/sys", "tmpfs", 0, "hidden"},
		{"none", binfmt, "tmpfs", 0, "mounted on"},
	} {
		if m.on != os.Getenv("PROC_IS") {
			continue
		}
		if err := unix.Mount(m.source, m.target, m.fs, m.flags, ""); err != nil {
			return "", fmt.Errorf("mount at %s: %w", m.target, err)
		}
	}
	cmd := stage("proc", &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		AmbientCaps: caps.All(),
	})
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func stage(name string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), stageEnv+"="+name)
	cmd.SysProcAttr = attr
	return cmd
}

func TestProc(t *testing.T) {
	for _, tt := range []struct{ procIs, want string }{
		{"as ever", "read-only: false, mounts below: \"\""},
		{"read-only", "read-only: true, mounts below: \"\""},
		{"mounted on", "read-only: false, mounts below: \"" + binfmt + "\""},
		{"hidden", "mounting /proc: operation not permitted (is part of the host's /proc hidden, as in a container?)"},
	} {
		cmd := stage("container", &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		})
		cmd.Env = append(cmd.Env, "PROC_IS="+tt.procIs)
		if out, _ := cmd.CombinedOutput(); string(out) != tt.want {
			t.Errorf("%s: %q, want %q", tt.procIs, out, tt.want)
		}
	}
}
