package launch

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

// childEnv has this binary, where a test's Run executes it as the child, play
// one that fails.
const childEnv = "LAUNCH_TEST_CHILD"

func TestMain(m *testing.M) {
	if IsChild(os.Args) {
		os.Exit(testChild(os.Getenv(childEnv)))
	}
	nstest.Main(m)
}

func testChild(failure string) int {
	if failure == "" || os.Args[0] == execName {
		code, err := Child(os.Args, ChildOptions{NewLog: func(bool) *slog.Logger { return slog.New(slog.DiscardHandler) }})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return code
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return 1
	}
	send := func(data string) { _ = unix.Send(fd, []byte(data), 0) }
	packet := make([]byte, wire.MaxMessage)
	if failure != "at once" {
		_, _ = unix.Read(fd, packet) // setup
	}
	switch failure {
	case "at once", "after setup":
		return 7
	case "garbage for ready":
		send("{garbage")
	case "kind for ready":
		send(`{"kind":"exec"}`)
	case "failed":
		send(`{"kind":"failed","error":"the reason"}`)
	case "after ready":
		send(`{"kind":"ready"}`)
		return 7
	case "garbage for a reply":
		send(`{"kind":"ready"}`)
		_, _ = unix.Read(fd, packet)
		send("{garbage")
	case "foreign reply":
		send(`{"kind":"ready"}`)
		_, _ = unix.Read(fd, packet)
		send(`{"kind":"reply","id":4711}`)
		return 7
	}
	awaitHangUp(fd)
	return 7
}

// awaitHangUp waits for the parent's end of the wire, which must end the child.
func awaitHangUp(fd int) {
	packet := make([]byte, wire.MaxMessage)
	for {
		if n, err := unix.Read(fd, packet); n == 0 || err != nil {
			return
		}
	}
}
