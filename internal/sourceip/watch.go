package sourceip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The watch pauses after a repair, longer and longer while changes continue,
// and also after failed repairs: a tool that makes many changes, or always
// undoes the repairs, should cost little. The watch sees its own changes too,
// and then finds nothing to repair.
const (
	minPause = 100 * time.Millisecond
	maxPause = time.Second
)

// startWatch repairs the rules and marks whenever nf_tables or the routing
// rules of the namespace have changed, until ctx ends.
func (a *agent) startWatch(ctx context.Context) error {
	var sockets []*os.File
	err := a.ns.Do(func() error {
		for _, s := range []struct{ proto, group int }{
			{unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_RULE},
			{unix.NETLINK_ROUTE, unix.RTNLGRP_IPV6_RULE},
			{unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES},
		} {
			f, err := subscribe(s.proto, s.group)
			if err != nil && s.proto == unix.NETLINK_NETFILTER {
				continue // a kernel without
			}
			if err != nil {
				return err
			}
			sockets = append(sockets, f)
		}
		return nil
	})
	if err != nil {
		closeFiles(sockets)
		return err
	}
	changed := make(chan struct{}, 1)
	for _, f := range sockets {
		go notify(f, changed)
	}
	go func() {
		defer closeFiles(sockets) // which ends notify
		a.repairOn(ctx, changed)
	}()
	return nil
}

func (a *agent) repairOn(ctx context.Context, changed <-chan struct{}) {
	pause, failed := minPause, false
	for {
		if !failed {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
		failed = a.repair() != nil
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if failed || len(changed) > 0 {
			pause = min(2*pause, maxPause)
		} else {
			pause = minPause
		}
	}
}

// notify sends on changed whenever a message arrives. Its contents do not
// matter, nor whether messages were lost.
func notify(f *os.File, changed chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// subscribe opens a netlink socket of the calling thread's namespace.
func subscribe(proto, group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribing to netlink group %d: %w", group, err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
