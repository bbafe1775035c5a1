package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

const (
	faultDescriptors = 256
	faultClients     = 900
	faultTimeout     = 2 * time.Second // of each client
	recoveryTimeout  = time.Second
)

func faultFigures() []Figure {
	return []Figure{{
		ID: "fault", Group: "fault", For: launched,
		Title:     fmt.Sprintf("%d clients at once with %d descriptors a process: afterwards", faultClients, faultDescriptors),
		Metrics:   []Metric{{Name: "serves within 1 s", Unit: yesNo, Plain: true}, {Name: "still listed", Unit: yesNo, Plain: true}},
		MaxRounds: 2,
		Sample:    sampleFault,
	}}
}

// sampleFault starves the launcher and its helpers of descriptors, but not the
// server inside, and looks whether the port lives on.
func sampleFault(ctx context.Context, r *runner, t Target) (Values, error) {
	s, err := r.open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := waitServing(ctx, false, s.addr(), startTimeout); err != nil {
		return nil, err
	}
	launcher, helpers := s.processes(r.tools)
	for _, pid := range append(launcher, helpers...) {
		limit := unix.Rlimit{Cur: faultDescriptors, Max: faultDescriptors}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			return nil, fmt.Errorf("limiting the descriptors of process %d: %w", pid, err)
		}
	}
	crowd(s.addr())
	serves := waitServing(ctx, false, s.addr(), recoveryTimeout) == nil
	v := Values{"serves within 1 s": truth(serves)}
	if s.info.PortDriver != nil { // else there is no list
		v["still listed"] = truth(s.listed(ctx))
	}
	return v, nil
}

// listed says that the launcher still has the TCP port in its list.
func (s *session) listed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, recoveryTimeout)
	defer cancel()
	c := api.NewClient(s.apiSocket())
	defer c.Close()
	ports, err := c.ListPorts(ctx)
	return err == nil && slices.ContainsFunc(ports, func(p api.PortStatus) bool {
		return p.Spec.Proto == "tcp" && p.Spec.ParentPort == s.port
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// crowd connects with all clients at once, keeps the connections for a while
// and closes them.
func crowd(addr string) {
	var all sync.WaitGroup
	end := time.Now().Add(faultTimeout)
	for range faultClients {
		all.Go(func() {
			c, err := net.DialTimeout("tcp4", addr, faultTimeout)
			if err != nil {
				return
			}
			defer c.Close()
			if c.SetDeadline(end) == nil {
				reply := make([]byte, messageSize)
				_ = exchange(c, message(opEcho), reply) // most of them fail, or wait in vain
				_, _ = c.Read(reply)                    // until the deadline
			}
		})
	}
	all.Wait()
}
