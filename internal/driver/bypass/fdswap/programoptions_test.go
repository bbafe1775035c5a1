package fdswap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

type option struct {
	name       string
	level, opt int
	value      int
}

// optionsToSet are in no value that a new socket has.
func optionsToSet(tcp, v6 bool) []option {
	options := []option{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, 3},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, 30_000},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 40_000},
		{"SO_TIMESTAMP", unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1},
		{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, 0x10},
		{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, 9},
		{"IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
	}
	if tcp {
		options = append(options,
			option{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			option{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77},
			option{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 5},
			option{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12_345})
	} else {
		options = append(options,
			option{"SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST, 1},
			option{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
			option{"UDP_GRO", unix.IPPROTO_UDP, unix.UDP_GRO, 1})
	}
	if v6 {
		options = append(options,
			option{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0x20},
			option{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 8},
			option{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1})
	}
	return options
}

// setOptions returns what readOptions finds then.
func setOptions(fd int, tcp, v6 bool) (map[string]string, error) {
	fresh := readOptions(fd)
	for _, o := range optionsToSet(tcp, v6) {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3}); err != nil {
		return nil, fmt.Errorf("SO_LINGER: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 11}); err != nil {
		return nil, fmt.Errorf("SO_RCVTIMEO: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("O_NONBLOCK: %w", err)
	}
	set := readOptions(fd)
	for _, o := range optionsToSet(tcp, v6) {
		if set[o.name] == fresh[o.name] {
			return nil, fmt.Errorf("%s is %s, as in a new socket", o.name, set[o.name])
		}
	}
	return set, nil
}

// readOptions reads all options that are copied by their names, and others by their
// numbers.
func readOptions(fd int) map[string]string {
	found := map[string]string{}
	read := func(name string, level, opt int) {
		if v, err := unix.GetsockoptInt(fd, level, opt); err == nil {
			found[name] = fmt.Sprint(v)
		}
	}
	for _, o := range copied {
		read(fmt.Sprintf("option %d/%d", o.level, o.name), o.level, o.name)
	}
	for _, tcp := range []bool{false, true} {
		for _, o := range optionsToSet(tcp, true) {
			read(o.name, o.level, o.opt)
		}
	}
	if l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil {
		found["SO_LINGER"] = fmt.Sprint(*l)
	}
	if tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO); err == nil {
		found["SO_RCVTIMEO"] = fmt.Sprint(*tv)
	}
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	found["flags"] = fmt.Sprintf("%#x", flags)
	return found
}
