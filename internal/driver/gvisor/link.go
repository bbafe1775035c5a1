package gvisor

// Theory of operation.
//
// The link is the TAP device itself: one goroutine reads frames, and any
// goroutine with a packet for the namespace writes it directly to the device. A
// read or write moves one frame, but with the offloads of the virtio-net header
// (link_vnethdr.go) a frame has up to 64 KiB, whatever the MTU.
//
// Reading: the packet is read into a buffer, and handled there: TCP by the package
// translate, datagrams and pings by datagram.go. The stack gets a copy of what is left.
//
// The stack's addresses are the only neighbours on this wire, so the stack does
// not resolve link addresses: frames go to the namespace's address, and the
// link follows if someone inside changes it.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"rootlesskit/internal/sockio"
)

const (
	// maxPacket is the size of the largest IP packet, and of the buffer for a read.
	maxPacket = 64 << 10
	// readBurst is how many frames are read before others may run.
	readBurst = 64
)

// link is the stack.LinkEndpoint over the TAP device.
type link struct {
	tap *sharedFD
	mtu atomic.Uint32
	mac net.HardwareAddr
	// peer is the namespace's link address, in the low 48 bits.
	peer atomic.Uint64
	// intercept handles packets that need no stack and returns true for them.
	// It must not keep the packet.
	intercept func(packet []byte, segment int) bool
	// frames counts those that came from the namespace.
	frames atomic.Uint64

	dispatcher stack.NetworkDispatcher
	reader     reader
}

func newLink(fd int, mtu int, mac, peer net.HardwareAddr) (*link, error) {
	tap, err := newSharedFD(fd, "tap")
	if err != nil {
		return nil, fmt.Errorf("the TAP device: %w", err)
	}
	l := &link{tap: tap, mac: mac}
	l.reader = reader{link: l, packet: make([]byte, maxPacket)}
	l.mtu.Store(uint32(mtu))
	l.peer.Store(macToUint64(peer))
	return l, nil
}

func macToUint64(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

// serve reads frames, with work, until the device is closed, and then returns nil, or
// until it is gone.
func (l *link) serve(work func(source func() (more bool, err error)) error) error {
	var failure error
	frames := l.reader.burst // once, not for each wait
	err := l.tap.raw.Read(func(fd uintptr) bool {
		l.reader.fd = int(fd)
		failure = work(frames)
		return failure != nil || l.tap.closed()
	})
	if l.tap.closed() || errors.Is(err, os.ErrClosed) {
		return nil
	}
	if failure == nil {
		failure = err
	}
	return fmt.Errorf("reading the TAP device: %w", failure)
}

// reader is the state of the reading.
type reader struct {
	link *link
	fd   int
	head [headLen]byte
	// packet is what follows.
	packet []byte
	iov    [2]unix.Iovec
}

// burst handles some of the frames there are, and returns true if there may be more.
func (r *reader) burst() (more bool, err error) {
	for range readBurst {
		n, errno := r.read(r.fd)
		switch {
		case errno == unix.EAGAIN:
			return false, nil
		case errno != 0:
			return false, errno
		case n > headLen:
			r.link.frames.Add(1)
			r.frame(n - headLen)
		}
	}
	return true, nil
}

func (r *reader) read(fd int) (int, unix.Errno) {
	r.iov[0].Base = &r.head[0]
	r.iov[0].SetLen(headLen)
	r.iov[1].Base = unsafe.SliceData(r.packet)
	r.iov[1].SetLen(maxPacket)
	return sockio.Readv(fd, r.iov[:])
}

// frame handles the frame in head and packet.
func (r *reader) frame(size int) {
	ether := r.head[vnetLen:]
	dst, src := ether[:6], ether[6:12]
	if multicast := dst[0]&1 != 0; !multicast && string(dst) != string(r.link.mac) {
		return
	}
	if from := macToUint64(src); from != r.link.peer.Load() && src[0]&1 == 0 {
		r.link.peer.Store(from)
	}
	proto := tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(ether[12:]))
	packet := r.packet[:size]
	completeChecksum(r.head[:], packet)
	if proto != header.ARPProtocolNumber && r.link.intercept(packet, segmentSize(r.head[:])) {
		return
	}
	r.link.deliver(proto, packet)
}

// deliver gives a packet to the stack.
func (l *link) deliver(proto tcpip.NetworkProtocolNumber, packet []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	l.dispatcher.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// putEther writes the Ethernet header of a frame to the namespace.
func (l *link) putEther(b []byte, proto tcpip.NetworkProtocolNumber) {
	peer := l.peer.Load()
	binary.BigEndian.PutUint16(b, uint16(peer>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(peer))
	copy(b[6:], l.mac)
	binary.BigEndian.PutUint16(b[12:], uint16(proto))
}

// write writes one frame: headers and payload. A frame that the device does not take is
// lost, as on any wire.
func (l *link) write(headers, payload []byte) {
	fd, ok := l.tap.acquire()
	if !ok {
		return
	}
	defer l.tap.release()
	var iov [2]unix.Iovec
	iov[0].Base = unsafe.SliceData(headers)
	iov[0].SetLen(len(headers))
	iov[1].Base = unsafe.SliceData(payload)
	iov[1].SetLen(len(payload))
	_, _ = sockio.Writev(fd, iov[:])
}

// Send implements translate.Link.
func (l *link) Send(headers []byte, ip int, payload []byte, segment int) {
	proto, gso := header.IPv4ProtocolNumber, byte(gsoTCPv4)
	if ip != header.IPv4MinimumSize {
		proto, gso = header.IPv6ProtocolNumber, gsoTCPv6
	}
	vnet := headers[:vnetLen]
	clear(vnet)
	putChecksumHeader(vnet, ip, header.TCPChecksumOffset)
	if len(payload) > segment {
		putSegments(vnet, gso, segment)
	}
	putHeaderLen(vnet, len(headers)-vnetLen)
	l.putEther(headers[vnetLen:], proto)
	l.write(headers, payload)
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	list := pkts.AsSlice()
	for _, pkt := range list {
		l.writePacket(pkt)
	}
	return len(list), nil
}

func (l *link) writePacket(pkt *stack.PacketBuffer) {
	var head [headLen]byte
	l.putEther(head[vnetLen:], pkt.NetworkProtocolNumber)
	packet := pkt.ToView()
	defer packet.Release()
	l.write(head[:], packet.AsSlice())
}

// The rest of stack.LinkEndpoint.

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements stack.NetworkLinkEndpoint.
func (l *link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// MaxHeaderLength implements stack.NetworkLinkEndpoint. The frame's header is
// written next to the packet, not into it.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.mac) }

// SetLinkAddress implements stack.NetworkLinkEndpoint: the address is fixed.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint. A packet from the kernel
// over a TAP device cannot have been damaged on the way, and its checksum may
// not even be filled in.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d != nil {
		l.dispatcher = d
	}
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher != nil }

// Wait implements stack.NetworkLinkEndpoint: Network owns the reader.
func (l *link) Wait() {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.NetworkLinkEndpoint: Network closes the device.
func (l *link) Close() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (l *link) SetOnCloseAction(func()) {}
