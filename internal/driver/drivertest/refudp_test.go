package drivertest_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

func (p *port) serveUDP(fd int) {
	f := os.NewFile(uintptr(fd), "udp")
	pc, err := net.FilePacketConn(f)
	f.Close()
	if err != nil {
		panic(err)
	}
	l := pc.(*net.UDPConn)
	rc, _ := l.SyscallConn()
	v6 := false
	rc.Control(func(fd uintptr) {
		sa, _ := unix.Getsockname(int(fd))
		_, v6 = sa.(*unix.SockaddrInet6)
		if v6 {
			unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
	})
	context.AfterFunc(p.ctx, func() { l.Close() })
	var mu sync.Mutex
	flows := map[netip.AddrPort]*net.UDPConn{}
	p.wg.Go(func() {
		defer func() {
			mu.Lock()
			for _, c := range flows {
				c.Close()
			}
			mu.Unlock()
		}()
		buf := make([]byte, 65536)
		oob := make([]byte, 256)
		for {
			n, on, _, from, err := l.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			ctl := append([]byte{}, oob[:on]...)
			mu.Lock()
			c := flows[from]
			mu.Unlock()
			if c == nil {
				c = p.dialUDP()
				mu.Lock()
				flows[from] = c
				mu.Unlock()
				p.wg.Go(func() {
					b := make([]byte, 65536)
					for {
						n, err := c.Read(b)
						if err != nil {
							if p.ctx.Err() != nil {
								return
							}
							continue
						}
						// turn the received pktinfo around
						if v6 {
							l.WriteMsgUDPAddrPort(b[:n], ctl, from)
						} else {
							info := append([]byte{}, ctl...)
							copy(info[16+4:16+8], info[16+8:16+12])
							for i := range 4 {
								info[16+i] = 0
							}
							l.WriteMsgUDPAddrPort(b[:n], info, from)
						}
					}
				})
			}
			if _, err := c.Write(buf[:n]); err != nil {
				c.Write(buf[:n])
			}
		}
	})
}

func (p *port) dialUDP() *net.UDPConn {
	family := unix.AF_INET
	if p.target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fds, err := netns.Sockets(context.Background(), p.r.child.Child, netns.SocketRequest{Family: family, Type: unix.SOCK_DGRAM, Count: 1})
	if err != nil {
		panic(err)
	}
	var sa unix.Sockaddr
	if family == unix.AF_INET {
		sa = &unix.SockaddrInet4{Port: int(p.target.Port()), Addr: p.target.Addr().As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(p.target.Port()), Addr: p.target.Addr().As16()}
	}
	if err := unix.Connect(fds[0], sa); err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fds[0]), "c")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	return c.(*net.UDPConn)
}
