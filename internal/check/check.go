// Package check checks whether this host can do a run, and says how to fix what
// prevents it.
//
// It does so in two ways. It inspects files and settings, which show a cause
// and so a fix. And it runs a probe, a child in new namespaces that does what a
// run does, which shows whether a run works. If the probe fails, the settings
// say why.
package check

import (
	"context"
	"fmt"
	"io"

	"rootlesskit/internal/userns"
)

// Status is the outcome of one check.
type Status string

// The outcomes.
const (
	OK      Status = "ok"
	Warning Status = "warning" // a run works, but lacks something
	Error   Status = "error"   // a run does not work
)

// Result is the result of one check.
type Result struct {
	// Name is a short, stable name, such as "subids".
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Message says in one line what was found.
	Message string `json:"message"`
	// Fix says in one line what to do; empty for OK.
	Fix string `json:"fix,omitempty"`
}

// Report is all results.
type Report struct {
	// OK says that no result is an error.
	OK      bool     `json:"ok"`
	Results []Result `json:"results"`
}

// NewReport summarizes results.
func NewReport(results []Result) Report {
	r := Report{OK: true, Results: results}
	for _, res := range results {
		r.OK = r.OK && res.Status != Error
	}
	return r
}

// Print writes the report in plain lines.
func (r Report) Print(w io.Writer) {
	for _, res := range r.Results {
		fmt.Fprintf(w, "%-8s %s: %s\n", res.Status, res.Name, res.Message)
		if res.Fix != "" {
			fmt.Fprintf(w, "%-8s fix: %s\n", "", res.Fix)
		}
	}
}

// Results checks the host.
func (h *Host) Results(ctx context.Context) []Result {
	results, probe := h.ids(ctx)
	return append(results,
		h.maxUserNamespaces(),
		h.userNamespacesClone(probe),
		h.appArmor(probe),
		probe.userNamespaces(),
		probe.idMap(),
		h.tun(probe),
		h.nfTables(probe),
		h.privilegedPorts(),
		h.pingGroupRange(),
		h.kernel(),
	)
}

// ids checks the ids that a run maps, and tries to map them.
func (h *Host) ids(ctx context.Context) ([]Result, Probe) {
	ids, err := h.SubIDs(ctx)
	probe := h.Probe(ctx, ids)
	none := len(ids.UIDs)+len(ids.GIDs) == 0
	switch {
	case none:
		return []Result{h.subIDs(ids, err)}, probe
	case probe.IDMap != "" && !h.InPasswd: // newuidmap(1) refuses such a user; a run then maps only the user's own id
		return []Result{h.nameless(probe.IDMap)}, h.Probe(ctx, userns.SubIDs{})
	}
	return []Result{h.subIDs(ids, err), h.mapTool("newuidmap", capSetuid), h.mapTool("newgidmap", capSetgid), h.noNewPrivs()}, probe
}

func ok(name, format string, args ...any) Result {
	return Result{Name: name, Status: OK, Message: fmt.Sprintf(format, args...)}
}

func bad(name string, status Status, fix, format string, args ...any) Result {
	return Result{Name: name, Status: status, Message: fmt.Sprintf(format, args...), Fix: fix}
}
