package mounts

import (
	"errors"
	"fmt"
	"os"
)

// ErrSymlink says that a file in /etc is a symlink that leads outside and
// cannot be replaced, because /etc is not writable.
var ErrSymlink = errors.New("it is a symlink and its directory is not writable (add --copy-up=/etc)")

// Etc mounts source over a file such as /etc/resolv.conf. If the directory is
// writable (copy-up), it first replaces a symlink with an empty file to mount
// on: a mount through the link would cover another file, which the host's
// services may replace at any time. It creates a missing file.
func Etc(source, target string) error {
	if err := prepareTarget(target); err != nil {
		return fmt.Errorf("%s cannot be replaced: %w", target, err)
	}
	return Bind(source, target)
}

func prepareTarget(target string) error {
	st, err := os.Lstat(target)
	switch {
	case err == nil && st.Mode()&os.ModeSymlink == 0:
		return nil
	case err == nil:
		if err := os.Remove(target); err != nil {
			// A mount through the link is better than the host's name servers, which the
			// namespace cannot reach.
			if _, statErr := os.Stat(target); statErr == nil {
				return nil
			}
			return ErrSymlink
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
