package nstest

import "os"

// atExit has what Main still must do in this process; a TestMain has no other
// place for it, since Main never returns.
var atExit []func()

// AtExit makes Main call f in this process before it ends.
func AtExit(f func()) { atExit = append(atExit, f) }

func exit(code int) {
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}
