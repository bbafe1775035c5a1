package main

import (
	"log/slog"
	"log/syslog"
)

// newLog returns the log for the time when no one reads this program's output:
// syslog, if there is one.
func newLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(systemLog{}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// systemLog keeps no descriptor open, since messages are rare.
type systemLog struct{}

func (systemLog) Write(line []byte) (int, error) {
	w, err := syslog.New(syslog.LOG_WARNING|syslog.LOG_DAEMON, "rootlessport")
	if err != nil {
		return 0, err
	}
	defer w.Close()
	return w.Write(line)
}
