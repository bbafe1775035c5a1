package manpage

import (
	"bytes"
	"os"
	"testing"
)

// Check fails the test unless the file contains the page; with update, it
// writes the file instead.
func Check(t testing.TB, file string, page []byte, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(file, page, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page) {
		t.Errorf("%s is not what the command line says now: run this test with -update", file)
	}
}
