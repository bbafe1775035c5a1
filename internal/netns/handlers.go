package netns

import "rootlesskit/internal/wire"

// Handlers returns the handlers of this package's methods, for the child.
func (n *Namespace) Handlers() wire.Handlers {
	all := wire.Handlers{}
	socketsMethod.Handle(all, n.sockets)
	tapMethod.Handle(all, n.openTAP)
	linkMethod.Handle(all, n.configure)
	neighboursMethod.Handle(all, n.neighbours)
	return all
}
