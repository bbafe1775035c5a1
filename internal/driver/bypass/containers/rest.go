package containers

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"rootlesskit/api"
	"rootlesskit/internal/seccomp"
)

// The REST API of bypass4netnsd, as nerdctl and others use it: before a tool starts a
// container, it asks for the container's ports, and for a socket where the runtime
// hands over the filter.
//
//	POST   /v1/bypass        spec -> 201 status
//	GET    /v1/bypass        [status]
//	DELETE /v1/bypass/{id}   200
//
// A failure is {"message": "..."}.

// spec is the request. ignoreSubnets and logFilePath have no effect, but are echoed: the
// first is about connections to the outside, which the network driver makes here, the
// second about the log of a process that there is not.
type spec struct {
	ID            string        `json:"id"`
	SocketPath    string        `json:"socketPath"`
	PidFilePath   string        `json:"pidFilePath"`
	LogFilePath   string        `json:"logFilePath"`
	PortMapping   []portMapping `json:"portMapping"`
	IgnoreSubnets []string      `json:"ignoreSubnets"`
	// IgnoreBind says that the ports shall not become native.
	IgnoreBind bool `json:"ignoreBind"`
}

type portMapping struct {
	Protos     []api.Proto `json:"protos"`
	ParentIP   string      `json:"parentIP,omitempty"`
	ParentPort int         `json:"parentPort"`
	ChildIP    string      `json:"childIP,omitempty"`
	ChildPort  int         `json:"childPort"`
}

// status is the answer. PID is the launcher's: there is no process for the container.
type status struct {
	ID   string `json:"id"`
	PID  int    `json:"pid"`
	Spec spec   `json:"spec"`
	// Ports say how each port is served, in the order of the spec. The original has
	// no such field.
	Ports []api.PortDetails `json:"ports,omitempty"`
}

// named is a container that a tool has announced.
type named struct {
	*container
	spec spec
}

// Handler answers container tools.
func (cs *Containers) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/bypass", func(w http.ResponseWriter, _ *http.Request) { send(w, http.StatusOK, cs.list()) })
	mux.HandleFunc("POST /v1/bypass", func(w http.ResponseWriter, r *http.Request) {
		n, err := cs.add(http.MaxBytesReader(w, r.Body, maxSpec))
		if err != nil {
			sendError(w, err)
			return
		}
		send(w, http.StatusCreated, n)
	})
	mux.HandleFunc("DELETE /v1/bypass/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := cs.remove(r.PathValue("id")); err != nil {
			sendError(w, err)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	return mux
}

// maxSpec bounds a request.
const maxSpec = 64 << 10

func send(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func sendError(w http.ResponseWriter, err error) {
	send(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
}

func (n *named) status() status {
	return status{ID: n.spec.ID, PID: os.Getpid(), Spec: n.spec, Ports: n.details()}
}

func (cs *Containers) list() []status {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := []status{}
	for _, n := range cs.named {
		list = append(list, n.status())
	}
	slices.SortFunc(list, func(a, b status) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// add publishes the ports of a container, and listens for its runtime.
func (cs *Containers) add(body io.Reader) (status, error) {
	spec, ports, err := readSpec(body)
	if err != nil {
		return status{}, err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case cs.ended:
		return status{}, errors.New("the launcher is shutting down")
	case cs.named[spec.ID] != nil:
		return status{}, fmt.Errorf("bypass %q exists already", spec.ID)
	}
	n := &named{cs.newContainer(!spec.IgnoreBind), spec}
	err = n.publish(ports)
	if err == nil {
		err = cs.listen(n.ctx, spec.SocketPath, func(s state, l *seccomp.Listener) error { return n.take(s, l, func() {}) })
	}
	if err == nil && spec.PidFilePath != "" {
		err = os.WriteFile(spec.PidFilePath, fmt.Appendf(nil, "%d", os.Getpid()), 0o644)
	}
	if err != nil {
		n.close()
		return status{}, err
	}
	cs.named[spec.ID] = n
	return n.status(), nil
}

// remove closes the ports of a container.
func (cs *Containers) remove(id string) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := cs.named[id]
	if n == nil {
		return fmt.Errorf("bypass %q does not exist", id)
	}
	delete(cs.named, id)
	n.close()
	return nil
}

// close closes the container, and removes the file with the PID.
func (n *named) close() {
	n.container.close()
	if n.spec.PidFilePath != "" {
		_ = os.Remove(n.spec.PidFilePath)
	}
}

// readSpec reads a request. It returns the port mappings as port specs too.
func readSpec(body io.Reader) (s spec, ports []api.PortSpec, err error) {
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return s, nil, fmt.Errorf("bad request body: %w", err)
	}
	switch {
	case s.ID == "":
		return s, nil, errors.New("the bypass has no id")
	case s.SocketPath == "":
		return s, nil, errors.New("the bypass has no socketPath")
	}
	for _, m := range s.PortMapping {
		for _, proto := range m.Protos {
			port := api.PortSpec{Proto: proto, ParentIP: m.ParentIP, ParentPort: m.ParentPort, ChildIP: m.ChildIP, ChildPort: m.ChildPort}
			if err := port.Validate(); err != nil {
				return s, nil, err
			}
			ports = append(ports, port)
		}
	}
	return s, ports, nil
}
