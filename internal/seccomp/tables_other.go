//go:build !amd64 && !arm64

package seccomp

const lowWord = 0

// Other architectures have not been tried.
var syscalls, compat table
