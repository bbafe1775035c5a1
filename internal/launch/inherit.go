package launch

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// InheritedFDs returns the descriptors above 2 that the program was started
// with, and marks them close-on-exec, so that they reach the command, for which
// they are meant, and no helper. Call it first in main: descriptors that Go
// opens are close-on-exec from the start.
func InheritedFDs() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("listing the inherited descriptors: %w", err)
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		unix.CloseOnExec(fd)
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// filesAtSameNumbers returns a layout of descriptors for syscall.ProcAttr: stdio
// and each inherited descriptor at its own number, with gaps closed. They are
// plain numbers, since an *os.File would close its descriptor when it is
// collected. Descriptors that startProcess passes itself are left out.
func filesAtSameNumbers(inherited []int) []uintptr {
	files := []uintptr{0, 1, 2}
	limit := placeable()
	for _, fd := range inherited {
		if fd < limit {
			files = placeFile(files, fd, fd)
		}
	}
	return files
}

// placeable is the number below which a new process can be given descriptors. A
// descriptor may be open above the limit, if the limit was lowered later. But
// none can be moved there, and Go moves its own descriptors above all that it
// passes.
func placeable() int {
	const spare = 8
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<20 {
		return 1 << 20
	}
	return int(limit.Cur) - spare
}

// startProcess is syscall.StartProcess for a program that inherits descriptors.
// Descriptors above the limit stay open in it because they are temporarily not
// close-on-exec, so no other program must be started in the meantime.
func startProcess(path string, argv []string, attr *syscall.ProcAttr, inherited []int) (int, error) {
	limit := placeable()
	for _, fd := range inherited {
		if fd >= limit {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
				return 0, fmt.Errorf("passing descriptor %d on: %w", fd, err)
			}
			defer unix.CloseOnExec(fd)
		}
	}
	pid, _, err := syscall.StartProcess(path, argv, attr)
	return pid, err
}

// placeFile puts a descriptor at a number of a layout.
func placeFile(files []uintptr, at, fd int) []uintptr {
	for len(files) <= at {
		files = append(files, ^uintptr(0))
	}
	files[at] = uintptr(fd)
	return files
}
