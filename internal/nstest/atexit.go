package nstest

import "os"

// atExit holds what Main still has to do in this process; a TestMain has no
// other place for it, as Main never returns.
var atExit []func()

// AtExit makes Main call f in this process before it ends.
func AtExit(f func()) { atExit = append(atExit, f) }

func exit(code int) {
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}
