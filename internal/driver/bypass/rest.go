package bypass

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"

	"rootlesskit/api"
)

// The REST API of bypass4netnsd, as nerdctl and others use it: before a container
// is started, a tool asks for its ports and for a socket that the runtime hands the
// filter over at.
//
//	POST   /v1/bypass        bypassSpec -> 201 bypassStatus
//	GET    /v1/bypass        [bypassStatus]
//	DELETE /v1/bypass/{id}   200
//
// A failure is {"message": "..."}.

// bypassSpec is the request. ignoreSubnets is about connections to the outside,
// which are the network driver's here, and logFilePath about a process of its own;
// both are taken and echoed.
type bypassSpec struct {
	ID            string        `json:"id"`
	SocketPath    string        `json:"socketPath"`
	PidFilePath   string        `json:"pidFilePath"`
	LogFilePath   string        `json:"logFilePath"`
	PortMapping   []portMapping `json:"portMapping"`
	IgnoreSubnets []string      `json:"ignoreSubnets"`
	// IgnoreBind leaves the ports to the relay.
	IgnoreBind bool `json:"ignoreBind"`
}

type portMapping struct {
	Protos     []string `json:"protos"`
	ParentIP   string   `json:"parentIP,omitempty"`
	ParentPort int      `json:"parentPort"`
	ChildIP    string   `json:"childIP,omitempty"`
	ChildPort  int      `json:"childPort"`
}

// bypassStatus is the answer. PID is the launcher's: it has no process for a
// container.
type bypassStatus struct {
	ID   string     `json:"id"`
	PID  int        `json:"pid"`
	Spec bypassSpec `json:"spec"`
	// Ports say how those of the container are served, in the order of the spec:
	// this implementation's own.
	Ports []api.PortDetails `json:"ports,omitempty"`
}

// bypasses are the containers that tools have asked for.
type bypasses struct {
	mu   sync.Mutex
	byID map[string]*bypassed
}

type bypassed struct {
	spec      bypassSpec
	container *container
	cancel    context.CancelFunc // ends its socket
}

// Socket implements driver.Serving.
func (p *Ports) Socket() string { return p.socket }

// Handler implements driver.Serving.
func (p *Ports) Handler() http.Handler {
	o := p.oci
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/bypass", func(w http.ResponseWriter, _ *http.Request) { send(w, http.StatusOK, o.list()) })
	mux.HandleFunc("POST /v1/bypass", func(w http.ResponseWriter, r *http.Request) {
		var spec bypassSpec
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxState)).Decode(&spec); err != nil {
			sendError(w, http.StatusBadRequest, fmt.Errorf("bad request body: %w", err))
			return
		}
		b, err := o.add(spec)
		if err != nil {
			sendError(w, http.StatusBadRequest, err)
			return
		}
		send(w, http.StatusCreated, b.status())
	})
	mux.HandleFunc("DELETE /v1/bypass/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := o.remove(r.PathValue("id")); err != nil {
			sendError(w, http.StatusBadRequest, err)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	return mux
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func sendError(w http.ResponseWriter, status int, err error) {
	send(w, status, map[string]string{"message": err.Error()})
}

func (b *bypassed) status() bypassStatus {
	return bypassStatus{ID: b.spec.ID, PID: os.Getpid(), Spec: b.spec, Ports: b.container.details()}
}

func (o *ociRoute) list() []bypassStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := []bypassStatus{}
	for _, b := range o.byID {
		list = append(list, b.status())
	}
	slices.SortFunc(list, func(a, b bypassStatus) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// add publishes the ports of a container and listens for it.
func (o *ociRoute) add(spec bypassSpec) (*bypassed, error) {
	specs, err := spec.ports()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byID[spec.ID] != nil {
		return nil, fmt.Errorf("bypass %q exists already", spec.ID)
	}
	ctx, cancel := context.WithCancel(o.driver.ctx)
	b := &bypassed{spec: spec, container: newContainer(o.driver), cancel: cancel}
	if err := b.container.publish(specs); err != nil {
		cancel()
		return nil, err
	}
	err = o.listen(ctx, spec.SocketPath, func(s containerState, fd int) error {
		return b.container.supervise(fd, s.PID, !spec.IgnoreBind, func() {})
	})
	if err == nil {
		err = writePIDFile(spec.PidFilePath)
	}
	if err != nil {
		cancel()
		b.container.close()
		return nil, err
	}
	o.byID[spec.ID] = b
	return b, nil
}

// remove closes the ports of a container.
func (o *ociRoute) remove(id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.byID[id]
	if b == nil {
		return fmt.Errorf("bypass %q does not exist", id)
	}
	delete(o.byID, id)
	b.cancel()
	b.container.close()
	if b.spec.PidFilePath != "" {
		_ = os.Remove(b.spec.PidFilePath)
	}
	return nil
}

// ports are the specs of all that is mapped.
func (s *bypassSpec) ports() (specs []api.PortSpec, err error) {
	switch {
	case s.ID == "":
		return nil, errors.New("the bypass has no id")
	case s.SocketPath == "":
		return nil, errors.New("the bypass has no socketPath")
	}
	for _, m := range s.PortMapping {
		for _, proto := range m.Protos {
			specs = append(specs, api.PortSpec{Proto: proto, ParentIP: m.ParentIP, ParentPort: m.ParentPort, ChildIP: m.ChildIP, ChildPort: m.ChildPort})
		}
	}
	return specs, nil
}
