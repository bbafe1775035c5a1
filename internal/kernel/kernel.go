// Package kernel describes the Linux features that this program uses beyond those
// of the oldest supported kernel, and the fallbacks. The features are data
// (features.go), so errors, --check and docs/kernels.md agree.
package kernel

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Feature is a feature that not every kernel has.
type Feature struct {
	// Name is its name in errors and tables.
	Name string
	// Since is the first version of Linux that has it; empty if it depends on the
	// kernel's configuration.
	Since string
	// Modules are the kernel modules that provide it, if it is not built in and
	// the namespace's root cannot load them.
	Modules string
	// Gives says what this program does with it, Without what it does otherwise.
	Gives, Without string

	// probe tries it; nil if it cannot be tried without being used.
	probe func() error

	mu    sync.Mutex
	known bool
	err   error
}

// ErrUnknown is the result for a feature that cannot be tried, at least not here.
var ErrUnknown = errors.New("the feature cannot be tried")

// Check tries the feature, and returns nil if the kernel has it. It remembers the
// result, unless the error may be temporary. A feature of network namespaces is
// tried in the calling thread's namespace.
func (f *Feature) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.probe == nil {
		return ErrUnknown
	}
	if f.known {
		return f.err
	}
	err := f.probe()
	if errors.Is(err, ErrUnknown) {
		return err
	}
	f.known = !passing(err)
	f.err = nil
	if err != nil {
		f.err = f.Lacks(err)
	}
	return f.err
}

// Lacks returns an error for a kernel that does not have the feature, as err has
// shown.
func (f *Feature) Lacks(err error) error {
	switch {
	case f.Since != "":
		return fmt.Errorf("the kernel has no %s (Linux %s or newer): %w", f.Name, f.Since, err)
	case f.Modules != "":
		return fmt.Errorf("the kernel has no %s (the host's root can try: modprobe -a %s): %w", f.Name, f.Modules, err)
	}
	return fmt.Errorf("the kernel has no %s: %w", f.Name, err)
}

// passing reports whether an error is about a temporary shortage, and says nothing
// about the kernel.
func passing(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EINTR},
		func(short error) bool { return errors.Is(err, short) })
}

// Missing returns the features of newer versions of Linux that this kernel does not have.
func Missing() (missing []*Feature) {
	for _, f := range All() {
		if err := f.Check(); f.Since != "" && err != nil && !errors.Is(err, ErrUnknown) {
			missing = append(missing, f)
		}
	}
	return missing
}

// Release returns the kernel's release (uname(2)).
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
