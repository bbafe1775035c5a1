package ports_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"rootlesskit/api"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/ports/portstest"
)

func TestSlowCloseBlocksOnlyItsOwnPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := &portstest.Driver{OnClose: func(spec api.PortSpec) error {
			if spec.ParentPort == 8080 {
				<-release
			}
			return nil
		}}
		table := ports.New(d)
		mustPublish(t, table, tcp(8080))
		mustPublish(t, table, tcp(8081))
		results := make(chan error, 2)
		for range cap(results) { // the second joins the first
			go func() { results <- table.Unpublish(t.Context(), 1) }()
		}
		synctest.Wait()

		if err := table.Unpublish(t.Context(), 2); err != nil {
			t.Error(err)
		}
		if got := ids(table); !reflect.DeepEqual(got, []int{1}) {
			t.Errorf("listed %v while port 1 may still be open", got)
		}
		_, err := table.Publish(t.Context(), tcp(8080))
		wantError(t, err, "conflict with ID 1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantError(t, table.Unpublish(ctx, 1), "port 1 is still being closed: context canceled")

		close(release)
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		mustPublish(t, table, tcp(8080))
	})
}

func TestFailedCloseKeepsThePort(t *testing.T) {
	reason := errors.New("slirp4netns does not answer")
	d := &portstest.Driver{OnClose: func(api.PortSpec) error { return reason }}
	table := ports.New(d)
	mustPublish(t, table, tcp(8080))
	if err := table.Unpublish(t.Context(), 1); !errors.Is(err, reason) {
		t.Errorf("error %v, want %v", err, reason)
	}
	if got := ids(table); !reflect.DeepEqual(got, []int{1}) {
		t.Errorf("listed %v, want the port that may still be open", got)
	}
	d.OnClose = nil
	if err := table.Unpublish(t.Context(), 1); err != nil {
		t.Errorf("second try: %v", err)
	}
}

func TestPublishForACallerWhoHasGoneAndCloseFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reason := errors.New("no answer")
	d := &portstest.Driver{
		OnForward: func(context.Context, api.PortSpec) error { cancel(); return nil },
		OnClose:   func(api.PortSpec) error { return reason },
	}
	table := ports.New(d)
	if _, err := table.Publish(ctx, tcp(8080)); !errors.Is(err, reason) {
		t.Errorf("error %v, want %v", err, reason)
	}
	if got := ids(table); !reflect.DeepEqual(got, []int{1}) {
		t.Errorf("listed %v, want the port that may still be open", got)
	}
}

func TestCloseAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &portstest.Driver{OnForward: func(ctx context.Context, spec api.PortSpec) error {
			if spec.ParentPort == 9 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		table := ports.New(d)
		for port := 1; port <= 3; port++ {
			mustPublish(t, table, tcp(port))
		}
		ctx, cancel := context.WithCancel(t.Context())
		go table.Publish(ctx, tcp(9))
		closed := make(chan error, 1)
		synctest.Wait()
		go func() { closed <- table.CloseAll() }()
		synctest.Wait()
		if len(closed) > 0 {
			t.Error("CloseAll did not wait for the Forward that is under way")
		}
		_, err := table.Publish(t.Context(), tcp(4))
		wantError(t, err, "no more ports can be published: the launcher is shutting down")
		cancel()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if len(table.List(false)) != 0 || d.OpenPorts() != 0 {
			t.Error("ports remain open")
		}
	})
}

func TestCloseAllReportsEveryFailure(t *testing.T) {
	d := &portstest.Driver{OnClose: func(api.PortSpec) error { return errors.New("no answer") }}
	table := ports.New(d)
	mustPublish(t, table, tcp(1))
	mustPublish(t, table, tcp(2))
	err := table.CloseAll()
	for _, want := range []string{"closing port 1 (:1:80/tcp): no answer", "closing port 2 (:2:80/tcp): no answer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}
