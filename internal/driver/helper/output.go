package helper

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// output receives what a program prints: each line goes to the debug log, and
// the last lines are kept to explain the program's death.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	lines   []string
}

const (
	maxLines = 5
	maxLine  = 1 << 10
)

// Write implements io.Writer. It does not fail.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = append(o.partial, b...)
	for {
		line, rest, found := bytes.Cut(o.partial, []byte("\n"))
		if !found && len(o.partial) <= maxLine {
			return len(b), nil
		}
		o.add(strings.TrimSpace(string(line[:min(len(line), maxLine)])))
		o.partial = rest
	}
}

func (o *output) add(line string) {
	if line == "" {
		return
	}
	o.log.Debug(line)
	o.lines = append(o.lines, line)
	if len(o.lines) > maxLines {
		o.lines = o.lines[1:]
	}
}

// tail returns the last lines that were printed.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lines
	if rest := strings.TrimSpace(string(o.partial)); rest != "" {
		lines = append(lines[:len(lines):len(lines)], rest)
	}
	return strings.Join(lines, "; ")
}
