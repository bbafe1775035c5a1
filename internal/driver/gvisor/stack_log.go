package gvisor

import (
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// discardLog drops what the stack's library logs.
type discardLog struct{}

// Emit implements log.Emitter.
func (discardLog) Emit(int, log.Level, time.Time, string, ...any) {}

// silenceLibrary keeps the stack's library from writing to standard error,
// which belongs to the command. It logs about packets from the namespace, and
// nothing that a user could act on.
func silenceLibrary() {
	log.SetLevel(log.Warning) // some of its loggers keep the first target
	log.SetTarget(discardLog{})
}
