//go:build !amd64 && !arm64

package seccomp

const lowWord = 0

// No other architecture has been tried.
var syscalls, compat table
