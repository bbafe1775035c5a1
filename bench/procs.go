package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running descendant of the measuring process, which is a child
// subreaper: helpers that became daemons are its descendants too.
type process struct {
	procStat
	pid int
	exe string // "" where the program hides it
}

// adoptOrphans makes this process the parent of descendants that lose theirs.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	return nil
}

// descendants lists the processes below this one.
func descendants() []process {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]process{}
	for _, path := range stats {
		dir := filepath.Dir(path)
		stat, err := statFields(dir)
		if err != nil { // it has ended
			continue
		}
		p := process{procStat: stat}
		p.pid, _ = strconv.Atoi(filepath.Base(dir))
		p.exe, _ = os.Readlink(dir + "/exe")
		children[p.parent] = append(children[p.parent], p)
	}
	found := slices.Clone(children[os.Getpid()])
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found
}

type procStat struct {
	name   string
	zombie bool
	parent int
	ticks  uint64 // user and system time
}

// statFields reads /proc/PID/stat, whose second field is a name in parentheses
// that may hold anything (proc_pid_stat(5)).
func statFields(dir string) (procStat, error) {
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(data))
}

func parseStat(line string) (procStat, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("no name in the process state %q", line)
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 13 {
		return procStat{}, fmt.Errorf("too few fields in the process state %q", line)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return procStat{}, fmt.Errorf("the parent in the process state %q: %w", line, err)
	}
	user, _ := strconv.ParseUint(fields[11], 10, 64)
	system, _ := strconv.ParseUint(fields[12], 10, 64)
	return procStat{line[open+1 : end], fields[0] == "Z", parent, user + system}, nil
}

// processes returns the launcher's own processes (parent and child) and its
// helpers. The agents are neither.
func (s *session) processes(t tools) (launcher, helpers []int) {
	for _, p := range descendants() {
		switch {
		case p.zombie || p.exe == t.bench():
		case p.exe == t.launcher(s.target.Launcher):
			launcher = append(launcher, p.pid)
		default:
			helpers = append(helpers, p.pid)
		}
	}
	return launcher, helpers
}

// endOrphans ends what a launcher left behind, after a moment to end by
// itself.
func endOrphans() {
	killed := map[int]bool{}
	for grace := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := descendants()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			if p.parent == os.Getpid() {
				_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
			}
			if time.Now().After(grace) && !p.zombie && !killed[p.pid] {
				progress("ending process %d (%s), which its launcher left behind", p.pid, p.name)
				_ = unix.Kill(p.pid, unix.SIGKILL)
				killed[p.pid] = true
			}
		}
	}
}

// pss is the proportional set size in KiB, in which a shared page is divided
// among those who map it. A program that hides its memory map (pasta is not
// dumpable) counts with its whole resident set.
func pss(pids []int) (uint64, error) {
	return sum(pids, func(pid int) (uint64, error) {
		kib, err := readKiB(pid, "smaps_rollup", "Pss:")
		if errors.Is(err, fs.ErrPermission) {
			return readKiB(pid, "status", "VmRSS:")
		}
		return kib, err
	})
}

// uss is the private memory in KiB: that of no other process, which the system gets
// back when these end. Of a program that hides its memory map it is what is not of a
// file.
func uss(pids []int) (uint64, error) {
	return sum(pids, func(pid int) (uint64, error) {
		clean, err := readKiB(pid, "smaps_rollup", "Private_Clean:")
		if errors.Is(err, fs.ErrPermission) {
			return readKiB(pid, "status", "RssAnon:")
		}
		if err != nil {
			return 0, err
		}
		dirty, err := readKiB(pid, "smaps_rollup", "Private_Dirty:")
		return clean + dirty, err
	})
}

// peakRSS is the largest resident set so far, in KiB.
func peakRSS(pids []int) (uint64, error) {
	return sum(pids, func(pid int) (uint64, error) { return readKiB(pid, "status", "VmHWM:") })
}

// ticks is the CPU time so far, in units of 10 ms (USER_HZ is 100 for all
// programs).
func ticks(pids []int) (uint64, error) {
	return sum(pids, func(pid int) (uint64, error) {
		f, err := statFields(fmt.Sprintf("/proc/%d", pid))
		return f.ticks, err
	})
}

func sum(pids []int, of func(pid int) (uint64, error)) (total uint64, err error) {
	for _, pid := range pids {
		n, err := of(pid)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func readKiB(pid int, file, key string) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	kib, err := valueOf(data, key)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return kib, nil
}

// valueOf finds the line "KEY   123 kB".
func valueOf(data []byte, key string) (uint64, error) {
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) >= 2 && fields[0] == key {
			return strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no %s", key)
}
