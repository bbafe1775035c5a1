// Command probe reports what a process sees of its world, one "key TAB value"
// a line, values quoted as in Go.
//
//	probe see DIR         everything; DIR has what was noted before Go's runtime began
//	probe signals N       the signals that arrive, until there are N of them
//	probe serve FILE      TCP and UDP servers on port 80; FILE appears when they listen
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread() // what is asked is the first thread's
	argument := ""
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	switch os.Args[1] {
	case "see":
		see(argument)
	case "signals":
		must(signals(argument))
	case "serve":
		must(serve(argument))
	default:
		must(fmt.Errorf("no such report: %s", os.Args[1]))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func see(notes string) {
	process(notes)
	identity()
	environment()
	mounts()
	listings()
	sysctls()
	network("net")
	if dir := os.Getenv("ROOTLESSKIT_STATE_DIR"); dir != "" {
		if netns := dir + "/netns"; exists(netns) && enter(netns) == nil {
			network("netns")
		}
	}
	attempts()
}

// enter moves the first thread to another network namespace.
func enter(netns string) error {
	fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", netns, err)
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// say adds a line to the report.
func say(key string, value any) {
	s := strings.TrimRight(fmt.Sprint(value), "\n")
	fmt.Printf("%s\t%q\n", key, s)
}

// content is that of a small file, or the reason why there is none.
func content(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return reason(err)
	}
	return string(b)
}

// reason is the system's part of an error.
func reason(err error) string {
	if err == nil {
		return "ok"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+len(": "):]
	}
	return "error: " + text
}
