package launch

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// InheritedFDs lists the descriptors above 2 that the program was started with
// and marks them close-on-exec, so that they reach the command, which they are
// meant for, and no helper. Call it first in main: whatever Go opens itself is
// close-on-exec from the start.
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

// filesAtSameNumbers lays descriptors out for syscall.ProcAttr: stdio and each
// inherited one at its own number, the gaps closed. An *os.File would close
// them when it is collected, so these are plain numbers.
func filesAtSameNumbers(inherited []int) []uintptr {
	files := []uintptr{0, 1, 2}
	for _, fd := range inherited {
		files = placeFile(files, fd, fd)
	}
	return files
}

// placeFile puts a descriptor at a number of a layout.
func placeFile(files []uintptr, at, fd int) []uintptr {
	for len(files) <= at {
		files = append(files, ^uintptr(0))
	}
	files[at] = uintptr(fd)
	return files
}
