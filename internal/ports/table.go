// Package ports is the table of published ports, the same for every driver.
//
// Theory of operation. A port is entered into the table before the driver
// forwards it, and leaves the table after the driver has closed it, so two
// ports can never compete for one address. The lock is held only for the
// bookkeeping, never while the driver works. An entry has these states, in this
// order:
//
//	reserved   the driver's Forward is under way: counts for conflicts, is not listed
//	published  closer is set
//	leaving    removal is set: the driver's Close is under way; still listed
//
// A Forward that fails removes its entry; the next port gets its ID, unless a
// later ID has been given. A Close that fails makes the entry published again: a
// port that may still be open must not vanish from the list.
package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
)

// Table publishes ports through a driver. Its methods may be called by several
// goroutines at once.
type Table struct {
	driver   driver.Ports
	forwards sync.WaitGroup // Publish calls in progress

	mu      sync.Mutex
	lastID  int
	entries map[int]*entry
	closed  bool
}

type entry struct {
	id      int
	spec    api.PortSpec
	closer  io.Closer
	removal *removal
}

// removal is a Close in progress. All callers that remove the port wait for the
// same one; err is set before done is closed.
type removal struct {
	done chan struct{}
	err  error
}

// New returns an empty table for a driver, which must be started before Publish
// is called. The owner ends it with CloseAll.
func New(d driver.Ports) *Table {
	return &Table{driver: d, entries: map[int]*entry{}}
}

var _ driver.Table = (*Table)(nil)

// Publish forwards a port and returns it with its new ID. If ctx ends before
// the driver is done, Publish closes the port again and returns the cause.
//
// The spec is kept unchanged: the driver interprets empty fields. The driver
// gets an IPv4-mapped address (::ffff:10.0.2.100) as the IPv4 address.
func (t *Table) Publish(ctx context.Context, spec api.PortSpec) (api.PortStatus, error) {
	return t.PublishBy(ctx, spec, t.driver.Forward)
}

// PublishBy implements driver.Table.
func (t *Table) PublishBy(ctx context.Context, spec api.PortSpec, forward driver.Forward) (api.PortStatus, error) {
	if err := spec.Validate(); err != nil {
		return api.PortStatus{}, err
	}
	if err := supported(t.driver, spec); err != nil {
		return api.PortStatus{}, err
	}
	e, err := t.reserve(spec)
	if err != nil {
		return api.PortStatus{}, err
	}
	defer t.forwards.Done()
	closer, err := open(ctx, unmapped(spec), forward)
	t.mu.Lock()
	defer t.mu.Unlock()
	e.closer = closer
	if closer == nil {
		delete(t.entries, e.id)
		if e.id == t.lastID { // no one has seen it: the next port may have it
			t.lastID--
		}
	}
	if err != nil {
		return api.PortStatus{}, err
	}
	return api.PortStatus{ID: e.id, Spec: spec}, nil
}

// supported returns an error for what the driver cannot do.
func supported(p driver.Ports, spec api.PortSpec) error {
	d := p.Info()
	if !slices.Contains(d.Protos, spec.Proto) {
		return fmt.Errorf("unsupported port protocol %s", spec.Proto)
	}
	if spec.ProxyProtocol != "" && !slices.Contains(d.ProxyProtocols, spec.ProxyProtocol) {
		return fmt.Errorf("the port driver %s does not send the PROXY protocol (%s): leave it out, or use --port-driver=builtin",
			d.Driver, spec.ProxyProtocol)
	}
	return nil
}

// reserve enters a port. The caller must call t.forwards.Done.
func (t *Table) reserve(spec api.PortSpec) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("no more ports can be published: the launcher is shutting down")
	}
	for _, e := range t.entries {
		if sameListener(e.spec, spec) {
			return nil, fmt.Errorf("conflict with ID %d", e.id)
		}
	}
	t.lastID++
	e := &entry{id: t.lastID, spec: spec}
	t.entries[e.id] = e
	t.forwards.Add(1)
	return e, nil
}

// sameListener compares strings. Whether, say, tcp and tcp4 collide on an
// address is left to the kernel, whose error clients know.
func sameListener(a, b api.PortSpec) bool {
	return a.Proto == b.Proto && unmap(a.ParentIP) == unmap(b.ParentIP) && a.ParentPort == b.ParentPort
}

func unmapped(spec api.PortSpec) api.PortSpec {
	spec.ParentIP, spec.ChildIP = unmap(spec.ParentIP), unmap(spec.ChildIP)
	return spec
}

func unmap(ip string) string {
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4In6() {
		return addr.Unmap().String()
	}
	return ip
}

// open forwards a port. If the caller has gone meanwhile, open closes the port, since
// no one would ever remove it. The closer is nil unless the port is, or may be, open.
func open(ctx context.Context, spec api.PortSpec, forward driver.Forward) (io.Closer, error) {
	closer, err := forward(ctx, spec)
	if err != nil {
		return nil, err
	}
	if ctx.Err() == nil {
		return closer, nil
	}
	if err := closer.Close(); err != nil {
		return closer, errors.Join(context.Cause(ctx), err)
	}
	return nil, context.Cause(ctx)
}

// Unpublish closes the port with this ID. When it returns nil, the same port
// can be published again. If ctx ends first, the port is still being closed. A
// port that the driver fails to close remains published.
func (t *Table) Unpublish(ctx context.Context, id int) error {
	r := t.remove(id)
	if r == nil {
		return fmt.Errorf("unknown id: %d", id)
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("port %d is still being closed: %w", id, context.Cause(ctx))
	}
}

// remove starts to close a port, or returns the removal that is in progress. It
// returns nil for a port that is not published.
func (t *Table) remove(id int) *removal {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[id]
	if e == nil || e.closer == nil {
		return nil
	}
	if e.removal == nil {
		e.removal = &removal{done: make(chan struct{})}
		go t.finish(e, e.removal)
	}
	return e.removal
}

func (t *Table) finish(e *entry, r *removal) {
	defer close(r.done)
	err := e.closer.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		r.err = fmt.Errorf("closing port %d (%s): %w", e.id, e.spec, err)
		e.removal = nil
		return
	}
	delete(t.entries, e.id)
}

// List returns the published ports in the order of their IDs; it never returns
// nil. With details, it includes the counters of drivers that count.
func (t *Table) List(details bool) []api.PortStatus {
	entries := t.published()
	list := make([]api.PortStatus, len(entries))
	for i, e := range entries {
		list[i] = api.PortStatus{ID: e.id, Spec: e.spec}
		if counting, ok := e.closer.(driver.Detailer); ok && details {
			d := counting.Details()
			list[i].Details = &d
		}
	}
	return list
}

// published returns sorted copies of the entries.
func (t *Table) published() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []entry
	for _, e := range t.entries {
		if e.closer != nil {
			list = append(list, *e)
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.id, b.id) })
	return list
}

// CloseAll closes every port and returns when all are closed. From now on,
// Publish fails. CloseAll waits for a Forward in progress, which its caller's
// context bounds.
func (t *Table) CloseAll() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.forwards.Wait()
	var removals []*removal
	for _, e := range t.published() {
		if r := t.remove(e.id); r != nil { // nil: it has been removed
			removals = append(removals, r)
		}
	}
	var errs []error
	for _, r := range removals {
		<-r.done
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
