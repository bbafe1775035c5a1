package ports_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"

	"rootlesskit/api"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/ports/portstest"
)

func tcp(port int) api.PortSpec { return api.PortSpec{Proto: "tcp", ParentPort: port, ChildPort: 80} }

func mustPublish(t *testing.T, table *ports.Table, spec api.PortSpec) int {
	t.Helper()
	status, err := table.Publish(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if status.Spec != spec {
		t.Fatalf("%v was echoed as %v", spec, status.Spec)
	}
	return status.ID
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("error %v, want %s", err, text)
	}
}

func ids(table *ports.Table) []int {
	var ids []int
	for _, p := range table.List(false) {
		ids = append(ids, p.ID)
	}
	return ids
}

func TestIDsGrowAndAreNotReused(t *testing.T) {
	table := ports.New(&portstest.Driver{})
	for want := 1; want <= 20; want++ {
		if id := mustPublish(t, table, tcp(want)); id != want {
			t.Fatalf("ID %d, want %d", id, want)
		}
	}
	for id := 1; id <= 19; id++ {
		if err := table.Unpublish(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if id := mustPublish(t, table, tcp(1)); id != 21 {
		t.Errorf("ID %d, want 21", id)
	}
	if got := ids(table); !reflect.DeepEqual(got, []int{20, 21}) {
		t.Errorf("listed %v, want 20 and 21", got)
	}
}

func TestEmptyListIsNotNil(t *testing.T) {
	if ports.New(&portstest.Driver{}).List(false) == nil {
		t.Error("an empty list would be encoded as null")
	}
}

func TestConflicts(t *testing.T) {
	table := ports.New(&portstest.Driver{})
	base := api.PortSpec{Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: 8080, ChildPort: 80}
	mustPublish(t, table, base)
	same := base
	same.ChildPort, same.ChildIP = 81, "10.0.2.100"
	_, err := table.Publish(t.Context(), same)
	wantError(t, err, "conflict with ID 1")
	for _, change := range []func(*api.PortSpec){
		func(s *api.PortSpec) { s.Proto = "tcp4" },
		func(s *api.PortSpec) { s.ParentIP = "127.0.0.2" },
		func(s *api.PortSpec) { s.ParentPort = 8081 },
	} {
		other := base
		change(&other)
		mustPublish(t, table, other)
	}
}

// TestMappedAddresses: Docker writes IPv4 addresses in their mapped form. They
// conflict as IPv4 addresses, and are such to the driver; clients get them back as
// they wrote them.
func TestMappedAddresses(t *testing.T) {
	d := &portstest.Driver{}
	table := ports.New(d)
	mapped := api.PortSpec{Proto: "tcp", ParentIP: "::ffff:127.0.0.1", ParentPort: 8080, ChildIP: "::ffff:10.0.2.100", ChildPort: 80}
	var got api.PortSpec
	_, err := table.PublishBy(t.Context(), mapped, func(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
		got = spec
		return d.Forward(ctx, spec)
	})
	if err != nil {
		t.Fatal(err)
	}
	plain := mapped
	plain.ParentIP, plain.ChildIP = "127.0.0.1", "10.0.2.100"
	if got != plain {
		t.Errorf("the driver was asked for %v", got)
	}
	if list := table.List(false); len(list) != 1 || list[0].Spec != mapped {
		t.Errorf("listed: %v", list)
	}
	_, err = table.Publish(t.Context(), plain)
	wantError(t, err, "conflict with ID 1")
}

func TestRefusedSpecs(t *testing.T) {
	table := ports.New(&portstest.Driver{})
	for _, tt := range []struct {
		spec api.PortSpec
		want string
	}{
		{api.PortSpec{}, `unknown proto: ""`},
		{api.PortSpec{Proto: "tcp"}, "invalid ParentPort: 0"},
		{api.PortSpec{Proto: "sctp", ParentPort: 1, ChildPort: 1}, "unsupported port protocol sctp"},
		{api.PortSpec{Proto: "tcp6", ParentPort: 1, ChildPort: 1}, "unsupported port protocol tcp6"},
		{
			api.PortSpec{Proto: "tcp4", ParentPort: 1, ChildPort: 1, ProxyProtocol: "v2"},
			"the port driver fake does not send the PROXY protocol (v2): leave it out, or use --port-driver=builtin",
		},
		{api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 1, ProxyProtocol: "v1"}, `unknown proxyProtocol: "v1" (expected "v2")`},
		{
			api.PortSpec{Proto: "udp", ParentPort: 1, ChildPort: 1, ProxyProtocol: "v2"},
			`proxyProtocol "v2" is for tcp ports only, not for udp`,
		},
	} {
		_, err := table.Publish(t.Context(), tt.spec)
		wantError(t, err, tt.want)
	}
}

func TestFailedForwardLeavesNothing(t *testing.T) {
	reason := errors.New("listen tcp 127.0.0.1:8080: bind: address already in use")
	d := &portstest.Driver{OnForward: func(context.Context, api.PortSpec) error { return reason }}
	table := ports.New(d)
	_, err := table.Publish(t.Context(), tcp(8080))
	wantError(t, err, reason.Error())
	d.OnForward = nil
	mustPublish(t, table, tcp(8080))
}

func TestUnknownIDs(t *testing.T) {
	table := ports.New(&portstest.Driver{})
	mustPublish(t, table, tcp(1))
	if err := table.Unpublish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int{-1, 0, 1, 2} {
		wantError(t, table.Unpublish(t.Context(), id), fmt.Sprintf("unknown id: %d", id))
	}
}

func TestDetails(t *testing.T) {
	table := ports.New(&portstest.Driver{})
	mustPublish(t, table, tcp(8080))
	mustPublish(t, table, api.PortSpec{Proto: "udp", ParentPort: 53, ChildPort: 53})
	for _, p := range table.List(false) {
		if p.Details != nil {
			t.Errorf("port %d has details that nobody asked for", p.ID)
		}
	}
	list := table.List(true)
	if d := list[0].Details; d == nil || d.Accepted != 8080 {
		t.Errorf("details %+v of a driver that counts", d)
	}
	if list[1].Details != nil {
		t.Errorf("details %+v of a driver that does not count", list[1].Details)
	}
}

func TestSlowForwardBlocksOnlyItsOwnPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := &portstest.Driver{OnForward: func(_ context.Context, spec api.PortSpec) error {
			if spec.ParentPort == 8080 {
				<-release
			}
			return nil
		}}
		table := ports.New(d)
		go table.Publish(t.Context(), tcp(8080))
		synctest.Wait()

		_, err := table.Publish(t.Context(), tcp(8080))
		wantError(t, err, "conflict with ID 1")
		wantError(t, table.Unpublish(t.Context(), 1), "unknown id: 1")
		mustPublish(t, table, tcp(8081))
		if got := ids(table); !reflect.DeepEqual(got, []int{2}) {
			t.Errorf("listed %v while port 1 is not yet open", got)
		}
		close(release)
		synctest.Wait()
		if got := ids(table); !reflect.DeepEqual(got, []int{1, 2}) {
			t.Errorf("listed %v, want both ports", got)
		}
	})
}

func TestPublishForACallerWhoHasGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &portstest.Driver{OnForward: func(context.Context, api.PortSpec) error {
		cancel()
		return nil
	}}
	table := ports.New(d)
	if _, err := table.Publish(ctx, tcp(8080)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if len(table.List(false)) != 0 || d.OpenPorts() != 0 {
		t.Error("the port remains open")
	}
}

// Ports come and go from several goroutines; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	d := &portstest.Driver{}
	table := ports.New(d)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 50 {
				status, err := table.Publish(t.Context(), tcp(1+(worker*i)%13))
				table.List(true)
				if err != nil {
					continue // a conflict with another worker
				}
				if err := table.Unpublish(t.Context(), status.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d.OpenPorts() != 0 || len(table.List(false)) != 0 {
		t.Error("ports remain open")
	}
}

// TestRefusedPortsTakeNoID: a client that was refused was told no ID, and the
// next port has the next one.
func TestRefusedPortsTakeNoID(t *testing.T) {
	table := ports.New(&portstest.Driver{OnForward: func(_ context.Context, spec api.PortSpec) error {
		if spec.ParentPort == 2 {
			return errors.New("it is taken")
		}
		return nil
	}})
	mustPublish(t, table, tcp(1))
	if _, err := table.Publish(t.Context(), tcp(2)); err == nil {
		t.Fatal("the port was not refused")
	}
	if id := mustPublish(t, table, tcp(3)); id != 2 {
		t.Errorf("ID %d, want 2", id)
	}
}
