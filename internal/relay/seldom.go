package relay

import (
	"sync/atomic"
	"time"
)

// seldom lets a thing that may happen all the time be said once in a while.
type seldom struct{ last atomic.Int64 }

// sayAgainAfter is the least time between two lines of the same trouble.
const sayAgainAfter = time.Minute

// due tells whether it is time to say it.
func (s *seldom) due() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return (last == 0 || now-last >= int64(sayAgainAfter)) && s.last.CompareAndSwap(last, now)
}
