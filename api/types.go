// Package api is RootlessKit's public package: the wire types of its REST API,
// the grammar of port specs, and a client for the API's Unix socket.
package api

// PortSpec says which port of the host is forwarded to which port of the
// namespace. The server echoes a spec exactly as it was sent: defaults are
// never filled in, so a client can match its own values on a later list.
type PortSpec struct {
	// Proto is tcp, tcp4, tcp6, udp, udp4 or udp6. On a wildcard address, tcp and
	// udp listen on both families, and the other forms on one.
	Proto Proto `json:"proto,omitempty"`
	// ParentIP is the address to listen on in the host, without brackets or
	// zone; empty means all.
	ParentIP string `json:"parentIP,omitempty"`
	// ParentPort is the port to listen on in the host, 1 to 65535.
	ParentPort int `json:"parentPort,omitempty"`
	// ChildPort is the port to connect to in the namespace, 1 to 65535.
	ChildPort int `json:"childPort,omitempty"`
	// ChildIP is the address to connect to in the namespace. Empty lets the
	// port driver choose.
	ChildIP string `json:"childIP,omitempty"`
	// ProxyProtocol, if "v2", makes each connection to the namespace begin with a
	// header of the PROXY protocol, version 2, binary format: it names the client
	// and the address that the client connected to. The server must expect the
	// header. Empty means no header. Only for TCP, and for port drivers that list it
	// in PortDriverInfo.ProxyProtocols. Since API version 1.2.0.
	ProxyProtocol string `json:"proxyProtocol,omitempty"`
}

// PortStatus is a published port.
type PortStatus struct {
	// ID identifies the port in DELETE /v1/ports/{id}. IDs start at 1, grow,
	// and are not reused while the launcher runs.
	ID   int      `json:"id"`
	Spec PortSpec `json:"spec"`
	// Details is set only if it was asked for (GET /v1/ports?details=true) and the
	// port driver counts. Since API version 1.2.0.
	Details *PortDetails `json:"details,omitempty"`
}

// PortDetails is what a port driver knows of a published port beyond its spec.
// The counters start at 0 when the port is published.
type PortDetails struct {
	// Accepted counts the connections (TCP) or flows (UDP) accepted so far.
	Accepted uint64 `json:"accepted"`
	// Refused counts those of them that the namespace refused.
	Refused uint64 `json:"refused"`
	// Active is the number of connections or flows open now.
	Active uint64 `json:"active"`
	// BytesIn and BytesOut count payload bytes to and from the namespace.
	BytesIn  uint64 `json:"bytesIn"`
	BytesOut uint64 `json:"bytesOut"`
	// AcceptErrors counts how often the host was short of a resource (file
	// descriptors, memory) when a connection arrived.
	AcceptErrors uint64 `json:"acceptErrors"`
	// Dropped counts the datagrams (UDP) for which there was no room. Since API
	// version 1.2.0.
	Dropped uint64 `json:"dropped,omitempty"`
	// State says what serves a TCP port of the driver bypass4netns now:
	// PortNative, the server itself with a socket of the host, or PortRelay, the
	// relay of the driver builtin. The counters only count what is relayed. Empty
	// with other drivers. Since API version 1.2.0.
	State string `json:"state,omitempty"`
	// StateReason says why the port is not native. Since API version 1.2.0.
	StateReason string `json:"stateReason,omitempty"`
	// Via says where a port leads if the userland proxy of a container engine
	// listens at its address: "container 172.17.0.2:80" if the port bypasses the
	// proxy, or else "userland proxy". Empty for other ports. Since API version
	// 1.2.0.
	Via string `json:"via,omitempty"`
	// LastError is the reason of the latest refused or failed connection.
	LastError string `json:"lastError,omitempty"`
}

// Values of PortDetails.State.
const (
	PortNative = "native"
	PortRelay  = "relay"
)

// Info describes a running launcher (GET /v1/info).
type Info struct {
	// APIVersion is the version of the server's API, Version that of its implementation.
	APIVersion string `json:"apiVersion"`
	Version    string `json:"version"`
	// StateDir is the absolute path of the state directory.
	StateDir string `json:"stateDir"`
	// ChildPID is the child's process ID in the PID namespace of the launcher.
	ChildPID int `json:"childPID"`
	// NetworkDriver is nil with --net=host.
	NetworkDriver *NetworkDriverInfo `json:"networkDriver,omitempty"`
	// PortDriver is nil with --port-driver=none and implicit.
	PortDriver *PortDriverInfo `json:"portDriver,omitempty"`
}

// NetworkDriverInfo describes the network driver in use.
type NetworkDriverInfo struct {
	// Driver is the network driver's name, a value of --net.
	Driver string `json:"driver"`
	// Reason says why --net=auto chose the driver; empty if the user chose it.
	// Since API version 1.2.0.
	Reason string `json:"reason,omitempty"`
	// DNS lists the IP addresses of the name servers in the namespace.
	DNS []string `json:"dns,omitempty"`
	// ChildIP is the IPv4 address of the namespace; empty if it has none.
	ChildIP string `json:"childIP,omitempty"`
	// DynamicChildIP says that ChildIP may change while the launcher runs.
	DynamicChildIP bool `json:"dynamicChildIP,omitempty"`
	// IPv6 says that the namespace has IPv6 connectivity.
	IPv6 bool `json:"ipv6,omitempty"`
}

// PortDriverInfo describes the port driver in use.
type PortDriverInfo struct {
	// Driver is the port driver's name, a value of --port-driver.
	Driver string `json:"driver"`
	// Reason says why --port-driver=auto chose the driver; empty if the user chose
	// it. Since API version 1.2.0.
	Reason string `json:"reason,omitempty"`
	// Protos lists the values of PortSpec.Proto that the driver can forward.
	Protos []Proto `json:"protos"`
	// DisallowLoopbackChildIP says that the driver cannot connect to a loopback
	// address of the namespace: set PortSpec.ChildIP to
	// NetworkDriverInfo.ChildIP.
	DisallowLoopbackChildIP bool `json:"disallowLoopbackChildIP,omitempty"`
	// ProxyProtocols lists the values of PortSpec.ProxyProtocol that the driver
	// supports, other than the empty one. Since API version 1.2.0.
	ProxyProtocols []string `json:"proxyProtocols,omitempty"`
	// Extra has information that is specific to this driver.
	Extra map[string]string `json:"extra,omitempty"`
}
