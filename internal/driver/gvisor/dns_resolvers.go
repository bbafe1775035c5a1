package gvisor

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	dnsPort = 53
	// maxNameServers is resolv.conf(5)'s MAXNS.
	maxNameServers = 3
	// resolvConfAge is how long the list of name servers is used without checking
	// whether the file has changed.
	resolvConfAge = time.Second
)

// resolvers is the list of the host's name servers, which follows
// /etc/resolv.conf as it changes.
type resolvers struct {
	path string
	port uint16

	mu      sync.Mutex
	checked time.Time
	file    os.FileInfo // the file of the list
	list    []netip.AddrPort
}

// servers returns the name servers in the order in which to ask them. As in
// resolv.conf(5), it is the local host if none is named.
func (r *resolvers) servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.checked) < resolvConfAge {
		return r.list
	}
	r.checked = now
	info, err := os.Stat(r.path)
	if err == nil && r.unchanged(info) {
		return r.list
	}
	content, err := os.ReadFile(r.path)
	if err != nil && len(r.list) > 0 {
		return r.list // being replaced: keep the old list
	}
	r.file = info
	r.list = parseResolvConf(content, r.port)
	if len(r.list) == 0 {
		r.list = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.port)}
	}
	return r.list
}

// unchanged reports whether the list matches the file as it is now. A link may lead
// to another file with the same time stamp.
func (r *resolvers) unchanged(now os.FileInfo) bool {
	return r.file != nil && os.SameFile(r.file, now) && now.ModTime().Equal(r.file.ModTime()) && now.Size() == r.file.Size()
}

// parseResolvConf returns the name servers of a resolv.conf.
func parseResolvConf(content []byte, port uint16) []netip.AddrPort {
	var list []netip.AddrPort
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan() && len(list) < maxNameServers; {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a.Unmap(), port))
		}
	}
	return list
}
