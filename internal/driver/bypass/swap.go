package bypass

import "fmt"

// newNative prepares the new socket.
func (p *port) newNative(b *bind, front int) (native, error) {
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
// bound already. It fails where the caller was killed, or has no room.
func (p *port) put(b *bind, front int, n native) error {
	dups := b.caller.descriptors(b.socket.inode)
	epolls := b.caller.epolls(dups)
	defer closeEpolls(epolls)
	// From here on a relayed connection could reach the shadow, which takes all its
	// clients for the namespace's own: the relay has to ask first.
	p.fronted.Store(true)
	if err := p.startShadow(b.socket, &n); err != nil {
		p.setNatives(p.natives)
		return refusal{fmt.Errorf("listening in the namespace for clients there: %w", err)}
	}
	p.steer(&n)
	before := p.natives
	p.setNatives(append(before[:len(before):len(before)], n))
	err := replace(b, dups, epolls, front)
	if err == nil {
		return nil
	}
	p.setNatives(before)
	p.steer(nil)
	_ = n.shadow.Close()
	return refusal{fmt.Errorf("replacing the server's socket: %w", err)}
}

func replace(b *bind, dups []descriptor, epolls []epoll, front int) error {
	for _, d := range dups {
		if err := b.ReplaceFD(front, d.number, d.closeOnExec); err != nil {
			return err
		}
	}
	if err := moveEpolls(epolls, front); err != nil {
		return err
	}
	return b.Return(0)
}
