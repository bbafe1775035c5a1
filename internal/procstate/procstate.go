// Package procstate looks at the state of other processes.
package procstate

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IsEnding reports whether a process has ended, is a zombie, is exiting, or was killed
// or sent SIGKILL (proc_pid_stat(5), proc_pid_status(5)).
func IsEnding(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	const ending = 0x4 | 0x400 // PF_EXITING, PF_SIGNALED of the kernel's sched.h
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 7 {
		return false
	}
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	return fields[0] == "Z" || fields[0] == "X" || flags&ending != 0 || killIsPending(pid)
}

func killIsPending(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		set, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if set&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
