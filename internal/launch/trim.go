package launch

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The start runs through most of the program once, and leaves nearly all of it
// mapped, in both halves. What a run needs from then on is a small part of it. So
// a while after the start each half gives the heap's free memory back and unmaps
// the program's own pages; those in use come back at their next use, from the page
// cache (madvise(2), MADV_DONTNEED on a file). A half that works waits for a pause, as
// that would delay what it does.

const (
	// trimAfter is long enough for short commands never to pay for it.
	trimAfter = time.Second
	// trimIdle is the CPU time that a half may have used in trimAfter.
	trimIdle = 20 * time.Millisecond
)

// trimLater trims the process once, at the first pause, unless stop is called
// before.
func trimLater(log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if !awaitPause(ctx) {
			return
		}
		debug.FreeOSMemory()
		if err := unmapProgram(); err != nil {
			log.Debug("memory of the start is kept", "error", err)
		}
	}()
	return cancel
}

// awaitPause waits until the process was idle for trimAfter; false: ctx ended.
func awaitPause(ctx context.Context) bool {
	tick := time.NewTicker(trimAfter)
	defer tick.Stop()
	for before := cpuTime(); ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		now := cpuTime()
		if now-before < trimIdle {
			return true
		}
		before = now
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// unmapProgram drops the unmodified, read-only pages of this program from the
// process.
func unmapProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	mappings, err := programMappings(bufio.NewScanner(f), exe)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	for _, m := range mappings {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise %x-%x: %w", m.start, m.end, errno)
		}
	}
	return nil
}

type mapping struct{ start, end uintptr }

// programMappings reads smaps (proc_pid_smaps(5)): a line with addresses,
// permissions and path begins each mapping, "Name: value" lines follow. A mapping
// with pages of its own (Anonymous), as relocations and debuggers leave, is not
// what is in the file, and is left out.
func programMappings(smaps *bufio.Scanner, exe string) ([]mapping, error) {
	var found []mapping
	ours := false
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		switch {
		case len(fields) >= 2 && strings.HasSuffix(fields[0], ":"):
			if ours && fields[0] == "Anonymous:" && fields[1] != "0" {
				found, ours = found[:len(found)-1], false
			}
		case len(fields) >= 6 && strings.HasPrefix(fields[1], "r-") && strings.Join(fields[5:], " ") == exe:
			m, err := parseRange(fields[0])
			if err != nil {
				return nil, err
			}
			found, ours = append(found, m), true
		default:
			ours = false
		}
	}
	return found, smaps.Err()
}

func parseRange(s string) (mapping, error) {
	first, last, _ := strings.Cut(s, "-")
	start, err := strconv.ParseUint(first, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, err
	}
	end, err := strconv.ParseUint(last, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, err
	}
	return mapping{uintptr(start), uintptr(end)}, nil
}
