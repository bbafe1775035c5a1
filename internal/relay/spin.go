package relay

import "time"

// spinner decides how long a loop polls before it blocks. To block and to be
// woken costs tens of microseconds where the CPU goes idle in between, more
// than all the work for a small message. So a loop whose events come within
// max of each other polls for them; each wait that was longer halves the time
// it polls, so that an idle loop does not poll at all.
type spinner struct {
	max    time.Duration // 0: never
	window time.Duration // what the next wait polls
}

// minSpin is the shortest time worth polling.
const minSpin = 2 * time.Microsecond

// poll polls for events for as long as it is worth it.
func (s *spinner) poll(l *loop) int {
	if s.window < minSpin {
		return 0
	}
	for deadline := l.now() + s.window; ; {
		if n := l.poll(); n > 0 {
			return n
		}
		if l.now() >= deadline {
			s.window /= 2
			return 0
		}
	}
}

// blocked learns how long the loop was blocked after poll had found nothing.
func (s *spinner) blocked(d time.Duration) {
	if d < s.max {
		s.window = s.max
	}
}
