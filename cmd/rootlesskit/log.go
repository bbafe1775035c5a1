package main

import (
	"context"
	"log/slog"
	"os"
)

// The tags distinguish the two halves; they are padded to the same width.
const (
	parentTag = "parent"
	childTag  = "child "
)

func newLog(tag string, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	text := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	return slog.New(tagged{Handler: text, prefix: "[rootlesskit:" + tag + "] "})
}

// tagged puts the tag before each message.
type tagged struct {
	slog.Handler
	prefix string
}

func (t tagged) Handle(ctx context.Context, r slog.Record) error {
	r.Message = t.prefix + r.Message
	return t.Handler.Handle(ctx, r)
}

func (t tagged) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tagged{t.Handler.WithAttrs(attrs), t.prefix}
}

func (t tagged) WithGroup(name string) slog.Handler {
	return tagged{t.Handler.WithGroup(name), t.prefix}
}
