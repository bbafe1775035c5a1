package relay

import (
	"sync/atomic"
	"time"
)

// seldom limits how often something is logged.
type seldom struct{ last atomic.Int64 }

// sayAgainAfter is the least time between two lines about the same problem.
const sayAgainAfter = time.Minute

// due reports whether it is time to log it.
func (s *seldom) due() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return (last == 0 || now-last >= int64(sayAgainAfter)) && s.last.CompareAndSwap(last, now)
}
