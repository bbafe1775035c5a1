package relay

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// spinner decides how long a loop polls before it blocks. Where the CPU goes idle
// in between, to block and to be woken costs tens of microseconds, more than all
// the work for a small message. So a loop whose events come within max of each
// other polls for them; a wait that was longer halves the time it polls, so that
// an idle loop does not poll at all.
//
// Where the CPUs are busy it is the other way round: the wake-up of a loop costs
// little, and a loop that polls takes the time that the client and the server
// need. So it polls only with time that nobody else wants.
type spinner struct {
	max    time.Duration // 0: never
	window time.Duration // what the next wait polls
	cpus   idleMeter
}

// minSpin is the shortest time worth polling.
const minSpin = 2 * time.Microsecond

// poll polls for events for as long as it is worth it.
func (s *spinner) poll(l *loop) int {
	if s.window < minSpin {
		return 0
	}
	start := l.now()
	if !s.cpus.spare(start) {
		return 0
	}
	for {
		n := l.poll()
		took := l.now() - start
		if n > 0 || took >= s.window {
			s.cpus.used += took
			if n <= 0 {
				s.window /= 2
			}
			return n
		}
	}
}

// blocked learns how long the loop was blocked after poll had found nothing.
func (s *spinner) blocked(d time.Duration) {
	if d < s.max {
		s.window = s.max
	}
}

// idleMeter tells whether the machine's CPUs have time to spare: a quarter of
// it, not counting what the loop itself has used up by polling.
type idleMeter struct {
	fd     int // /proc/uptime; -1: cannot tell
	at     time.Duration
	idle   time.Duration // of all CPUs, at that time
	used   time.Duration // since then
	enough bool
}

// meterEvery is how often the meter is read; the kernel counts in hundredths of
// a second.
const meterEvery = 100 * time.Millisecond

// newIdleMeter returns the meter of a loop that may poll for so long.
func newIdleMeter(spin time.Duration) idleMeter {
	if spin <= 0 {
		return idleMeter{fd: -1}
	}
	fd, err := unix.Open("/proc/uptime", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return idleMeter{fd: fd}
}

func (m *idleMeter) close() {
	if m.fd >= 0 {
		unix.Close(m.fd)
	}
}

func (m *idleMeter) spare(now time.Duration) bool {
	elapsed := now - m.at
	if elapsed < meterEvery || m.fd < 0 {
		return m.enough
	}
	var buf [64]byte
	n, _ := sysPread(m.fd, buf[:])
	idle := parseIdle(buf[:n])
	// After a long silence the average says nothing about now.
	m.enough = elapsed < 10*meterEvery && idle-m.idle+m.used > elapsed*time.Duration(runtime.NumCPU())/4
	m.at, m.idle, m.used = now, idle, 0
	return m.enough
}

// parseIdle returns the second number of /proc/uptime (proc_uptime(5)): what the
// CPUs were idle, in seconds, with two decimals.
func parseIdle(b []byte) time.Duration {
	field, hundredths := 0, time.Duration(0)
	for _, c := range b {
		switch {
		case c == ' ':
			field++
		case field == 1 && c >= '0' && c <= '9':
			hundredths = hundredths*10 + time.Duration(c-'0')
		}
	}
	return hundredths * 10 * time.Millisecond
}
