package bypass

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newNative prepares the new socket.
func (t *port) newNative(b *bind, front int) (native, error) {
	inode, err := inodeOf(front)
	if err != nil {
		return native{}, err
	}
	if err := b.socket.copyTo(front); err != nil {
		return native{}, err
	}
	return native{inode: inode, family: b.socket.family, v6Only: b.socket.v6Only, pid: b.caller.pid, fd: b.FD}, nil
}

// put puts the new socket in the place of the old one, which becomes the shadow.
// After it has begun there is no way back to the kernel's bind: the old socket is
// bound already.
func (t *port) put(b *bind, front int, n native) error {
	dups := b.caller.descriptors(b.socket.inode)
	epolls := b.caller.epolls(dups)
	defer closeEpolls(epolls)
	t.steer(&n)
	fronted := t.fronted.Swap(true)
	t.natives = append(t.natives, n)
	err := t.addShadow(b, n)
	for _, d := range dups {
		if err == nil {
			err = b.ReplaceFD(front, d.number, d.closeOnExec)
		}
	}
	if err == nil {
		err = moveEpolls(epolls, front)
	}
	if err == nil {
		err = b.Return(0)
	}
	if err == nil {
		return nil
	}
	t.natives = t.natives[:len(t.natives)-1]
	if !fronted {
		t.unfront(fmt.Errorf("the server's socket could not be replaced: %w", err))
	}
	t.steer(nil)
	// The caller has been killed, or has no room for descriptors.
	return refusal{unix.ENOBUFS}
}

func (t *port) addShadow(b *bind, n native) error {
	if t.shadow != nil {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(b.socket.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := t.startShadow(fd, n); err != nil {
		return fmt.Errorf("listening in the namespace for clients there: %w", err)
	}
	return nil
}
