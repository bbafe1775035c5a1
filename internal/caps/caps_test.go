package caps_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

// lowerMethod has the child, which has all capabilities, work with its own.
const lowerMethod wire.Method[uint, wire.None] = "caps.lower"

func TestMain(m *testing.M) {
	nstest.Main(m, func(context.Context, *netns.Namespace) wire.Handlers {
		all := wire.Handlers{}
		lowerMethod.Handle(all, func(_ context.Context, c uint) (none wire.None, fds []int, err error) {
			failed := make(chan error)
			go func() {
				runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
				failed <- lower(c)
			}()
			return none, nil, <-failed
		})
		return all
	})
}

// lower takes a capability out of effect, raises it again, and drops what programs
// would inherit.
func lower(c uint) error {
	all, err := caps.Get()
	if err != nil || !all.Has(c) || !all.Permits(c) {
		return fmt.Errorf("the child has %x of capability %d: %w", all, c, err)
	}
	if err := all.Without(c).Set(); err != nil {
		return err
	}
	if has, err := caps.Effective(c); has || err != nil {
		return fmt.Errorf("capability %d is in effect, error %v", c, err)
	}
	lowered, err := caps.Get()
	if err != nil || !lowered.Permits(c) {
		return fmt.Errorf("capability %d is not permitted any more: %w", c, err)
	}
	if err := lowered.With(c).Set(); err != nil {
		return err
	}
	if err := caps.DropInheritable(); err != nil {
		return err
	}
	after, err := caps.Get()
	if err != nil || !after.Has(c) || after[0].Inheritable|after[1].Inheritable != 0 {
		return fmt.Errorf("at the end there is %x: %w", after, err)
	}
	return nil
}

// TestSets: of each half of the sets.
func TestSets(t *testing.T) {
	child := nstest.NewChild(t)
	for _, c := range []uint{unix.CAP_NET_BIND_SERVICE, unix.CAP_SYSLOG} {
		if _, _, err := lowerMethod.Call(t.Context(), child, c); err != nil {
			t.Error(err)
		}
	}
	if n := len(caps.All()); n <= unix.CAP_SYSLOG {
		t.Errorf("the kernel knows %d capabilities", n)
	}
}
