// Package userlandproxy finds the userland proxies of container engines, and
// where they lead.
//
// An engine publishes a container's port twice: it asks the launcher to lead the
// host's port to an address of the namespace, and starts a program there that
// carries each connection on to the container (docker-proxy). The container then
// sees the proxy as its client, and everything is copied once more. Who knows the
// container's address connects to it instead.
//
// The child looks (agent.go), since it sees the namespace: the kernel's socket
// diagnostics name the inode of the socket that listens at the address, /proc
// names the process that has it, and that process's command line names the
// container. It has been the same for as long as the program exists:
//
//	docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 8080 -container-ip 172.17.0.2 -container-port 80
//
// Whoever can listen in the namespace can have such a command line. It shall win
// nothing that a proxy of its own could not reach, so it is followed only to a
// neighbour on a bridge of the namespace (neighbour.go): never to loopback, to an
// address of the namespace's own, to the uplink's network, or through a gateway.
//
// An answer holds while the proxy lives: [Proxy.Alive] is told by a pidfd. Whether
// the same socket still listens has to be asked again, now and then.
package userlandproxy
