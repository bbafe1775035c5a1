package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"rootlesskit/api"
)

// maxBody bounds the body of a request, in bytes. A port spec takes about 200.
const maxBody = 64 << 10

var errNoPortDriver = errors.New("no PortDriver is available")

// methods are the handlers of one path.
type methods map[string]http.HandlerFunc

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for path, handlers := range map[string]methods{
		"/v1/info":         {"GET": s.info},
		"/v1/openapi.yaml": {"GET": s.openAPI},
		"/v1/ports":        {"GET": s.withPorts(s.listPorts), "POST": s.withPorts(s.addPort)},
		"/v1/ports/{id}":   {"DELETE": s.withPorts(s.removePort)},
	} {
		for method, h := range handlers {
			mux.HandleFunc(method+" "+path, h)
		}
		allow := slices.Sorted(maps.Keys(handlers))
		mux.HandleFunc(path, s.methodNotAllowed(strings.Join(allow, ", ")))
	}
	mux.HandleFunc("/", s.notFound)
	return mux
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.sendError(w, http.StatusNotFound, fmt.Errorf("no such path: %s", r.URL.Path))
}

func (s *Server) methodNotAllowed(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		s.sendError(w, http.StatusMethodNotAllowed, fmt.Errorf("%s has no method %s, only %s", r.URL.Path, r.Method, allow))
	}
}

func (s *Server) info(w http.ResponseWriter, _ *http.Request) {
	info, err := s.cfg.Info()
	if err != nil {
		s.sendError(w, http.StatusInternalServerError, err)
		return
	}
	s.send(w, http.StatusOK, info)
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, "application/yaml", api.OpenAPI)
}

// withPorts guards the handlers that need a port driver. All their failures
// have status 400, which clients expect.
func (s *Server) withPorts(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := errNoPortDriver
		if s.cfg.Ports != nil {
			err = h(w, r)
		}
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			s.sendError(w, http.StatusRequestEntityTooLarge, err)
		case err != nil:
			s.sendError(w, http.StatusBadRequest, err)
		}
	}
}

func (s *Server) listPorts(w http.ResponseWriter, r *http.Request) error {
	details := false
	if v := r.URL.Query().Get("details"); v != "" {
		var err error
		if details, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("bad details: %q is neither true nor false", v)
		}
	}
	s.send(w, http.StatusOK, s.cfg.Ports.List(details))
	return nil
}

func (s *Server) addPort(w http.ResponseWriter, r *http.Request) error {
	var spec api.PortSpec
	if err := decode(w, r, &spec); err != nil {
		return err
	}
	status, err := s.cfg.Ports.Publish(r.Context(), spec)
	if err != nil {
		return err
	}
	s.cfg.Log.Debug("published a port", "id", status.ID, "spec", spec)
	s.send(w, http.StatusCreated, status)
	return nil
}

func (s *Server) removePort(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		return fmt.Errorf("bad id %s: %w", r.PathValue("id"), err)
	}
	if err := s.cfg.Ports.Unpublish(r.Context(), id); err != nil {
		return err
	}
	s.cfg.Log.Debug("unpublished a port", "id", id)
	s.write(w, http.StatusOK, "", nil)
	return nil
}

// decode reads one JSON value, which must be the whole body.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	err := body.Decode(v)
	if errors.Is(err, io.EOF) {
		return errors.New("bad request body: it is empty, expected a JSON object")
	}
	if err != nil {
		return fmt.Errorf("bad request body: %w", err)
	}
	switch _, err := body.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("bad request body: after the JSON object: %w", err)
	default:
		return errors.New("bad request body: data after the JSON object")
	}
}

func (s *Server) sendError(w http.ResponseWriter, status int, err error) {
	s.send(w, status, map[string]string{"message": err.Error()})
}

func (s *Server) send(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // cannot happen: the API's types can be encoded
		s.cfg.Log.Error("encoding an API response", "error", err)
		status, body = http.StatusInternalServerError, []byte(`{"message":"the response cannot be encoded"}`)
	}
	s.write(w, status, "application/json", body)
}

func (s *Server) write(w http.ResponseWriter, status int, contentType string, body []byte) {
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.cfg.Log.Debug("sending an API response", "error", err)
	}
}
