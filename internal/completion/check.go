package completion

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/urfave/cli/v3"
)

// Check fails the test unless dir has the scripts of the command line, with the
// names that distributions use; with update, it writes them instead.
func Check(t testing.TB, dir string, cmd func() *cli.Command, update bool) {
	t.Helper()
	name := cmd().Name
	for file, render := range map[string]func(*cli.Command) []byte{
		filepath.Join("bash", name):         Bash,
		filepath.Join("zsh", "_"+name):      Zsh,
		filepath.Join("fish", name+".fish"): Fish,
	} {
		file, script := filepath.Join(dir, file), render(cmd())
		if update {
			if err := os.WriteFile(file, script, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, script) {
			t.Errorf("%s is not what the command line says now: run this test with -update", file)
		}
	}
}
