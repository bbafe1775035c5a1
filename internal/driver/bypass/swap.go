package bypass

import (
	"fmt"

	"rootlesskit/internal/driver/bypass/fdswap"
)

// put puts the socket front of the host in the place of the caller's, which becomes
// the shadow. Once the shadow listens, the bind can no longer pass through to the
// kernel, so every later error is a refusal. put fails where the caller no longer
// waits, or has no room for descriptors. Where it ceases to wait after the swap, the
// server has the socket all the same.
func (p *port) put(b *bind, front int) error {
	inode, err := fdswap.Inode(front)
	if err != nil {
		return err
	}
	swap, err := b.caller.Prepare(b.socket, front)
	if err != nil {
		return err
	}
	defer swap.Close()
	n := native{inode: inode, family: b.socket.Family, v6Only: b.socket.V6Only, pid: b.caller.PID, fd: b.FD, from: b.socket.Inode}
	// From here on a connection of the fallback could reach the shadow, which takes all
	// its clients for clients in the namespace. So the fallback has to ask first.
	p.fronted.Store(true)
	if err := p.startShadow(b.socket, &n); err != nil {
		p.setNatives(p.natives)
		return refusal{fmt.Errorf("listening in the namespace for clients there: %w", err)}
	}
	p.steer(&n)
	before := p.natives
	p.setNatives(append(before[:len(before):len(before)], n))
	if err = swap.Do(); err == nil {
		p.natives[len(before)].unanswered = !p.tell(b, 0)
		return nil
	}
	p.setNatives(before)
	p.steer(nil)
	_ = n.shadow.Close()
	return refusal{fmt.Errorf("replacing the server's socket: %w", err)}
}
