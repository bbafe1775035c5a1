package driver_test

import (
	"strings"
	"testing"

	"rootlesskit/internal/driver"
)

// TestRegisteredTwice: two drivers with a name in common are a mistake in the program.
func TestRegisteredTwice(t *testing.T) {
	flag := driver.Flag{Name: "binary"}
	port := []driver.PortRole{{Name: "port"}}
	for _, tt := range []struct {
		a, b driver.Driver
		want string
	}{
		{driver.Driver{Name: "a"}, driver.Driver{Name: "a"}, "the driver a is registered twice"},
		{driver.Driver{Name: "a", Ports: port}, driver.Driver{Name: "b", Ports: port}, "the port driver port is registered twice, by a and b"},
		{driver.Driver{Name: "a", Flags: []driver.Flag{flag}}, driver.Driver{Name: "b", Flags: []driver.Flag{{Name: "binary", Kind: driver.Bool}}}, "the driver b declares the flag --binary"},
		{driver.Driver{Name: "a", Flags: []driver.Flag{flag}}, driver.Driver{Name: "b", Flags: []driver.Flag{flag}}, ""},
	} {
		if got := panics(func() {
			reg := driver.NewRegistry()
			reg.Register(tt.a)
			reg.Register(tt.b)
		}); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// TestUndeclaredFlag: a driver that reads a flag by a wrong name, or as what it is
// not, does not get an empty value.
func TestUndeclaredFlag(t *testing.T) {
	flags := driver.FlagValues([]driver.Flag{{Name: "fast", Kind: driver.Bool, Default: "true"}, {Name: "mode", Default: "auto"}}, nil)
	if !flags.Bool("fast") || flags.String("mode") != "auto" {
		t.Errorf("the defaults are %v and %q", flags.Bool("fast"), flags.String("mode"))
	}
	for _, read := range []func(){
		func() { flags.String("moed") }, func() { flags.Bool("fst") }, func() { flags.Bool("mode") }, func() { flags.String("fast") },
	} {
		if panics(read) == "" {
			t.Error("a flag was read that was not declared so")
		}
	}
}

func panics(f func()) (text string) {
	defer func() { text, _ = recover().(string) }()
	f()
	return ""
}
