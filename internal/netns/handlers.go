package netns

import "rootlesskit/internal/wire"

// Handlers are the methods of this package that the child answers.
func (n *Namespace) Handlers() wire.Handlers {
	return wire.Handlers{
		socketsMethod:    n.sockets,
		tapMethod:        n.openTAP,
		linkMethod:       n.configure,
		neighboursMethod: n.neighbours,
	}
}
