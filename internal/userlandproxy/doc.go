// Package userlandproxy finds the userland proxies of container engines, and
// where they lead.
//
// An engine publishes a container's port twice: it asks the launcher for a port
// of the host that leads to an address of the namespace, and starts a program
// that listens there and forwards each connection to the container
// (docker-proxy). The container then sees the proxy as its client, and everything
// is copied once more. A relay that knows the container's address can connect to
// it directly instead.
//
// The child looks for proxies (agent.go), since it sees the namespace: the
// kernel's socket diagnostics give the inode of the socket that listens at the
// address, /proc shows the process that has the socket, and that process's
// command line names the container. The command line has always had this form:
//
//	docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 8080 -container-ip 172.17.0.2 -container-port 80
//
// Any process that can listen in the namespace can have such a command line. It
// must not gain access to anything that a proxy of its own could not reach, so
// the address counts only if it is a neighbour on a bridge of the namespace
// (neighbour.go): never loopback, an address of the namespace itself, the
// uplink's network, or an address behind a gateway.
//
// An answer is valid while the proxy lives: [Proxy.Alive] checks that with a
// pidfd. Callers have to ask again from time to time whether the same socket still
// listens.
package userlandproxy
