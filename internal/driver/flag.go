package driver

import "slices"

// Flag is a command-line flag of a driver.
type Flag struct {
	Name    string
	Kind    FlagKind
	Default string // for a Bool "true", or "false", which is the same as empty
	Usage   string
	Values  []string // the allowed values; nil: any
	// Category is the topic under which help lists the flag; empty: that of the driver.
	Category string
	// Hidden says that the flag is accepted for old command lines, but not shown in
	// help.
	Hidden bool
	// Strict says that the flag is refused if another driver is in use; otherwise it
	// is ignored then.
	Strict bool
}

// FlagKind is the kind of a flag's value.
type FlagKind int

// The kinds of flags.
const (
	String FlagKind = iota
	Bool
	File // a String, the name or path of a file
)

// Flags lets a driver read its own flags.
type Flags interface {
	String(name string) string
	Bool(name string) bool
}

// DeclaredFlags gives a driver the values of the flags that it has declared. It
// panics for other names, so that a mistyped name does not pass for an empty
// flag.
func DeclaredFlags(declared []Flag, values Flags) Flags {
	return declaredFlags{declared, values}
}

type declaredFlags struct {
	declared []Flag
	values   Flags
}

func (d declaredFlags) check(name string, isBool bool) {
	if !slices.ContainsFunc(d.declared, func(f Flag) bool { return f.Name == name && (f.Kind == Bool) == isBool }) {
		panic("a driver reads the flag --" + name + ", which it has not declared")
	}
}

func (d declaredFlags) String(name string) string {
	d.check(name, false)
	return d.values.String(name)
}

func (d declaredFlags) Bool(name string) bool {
	d.check(name, true)
	return d.values.Bool(name)
}

// FlagValues has the flags of a driver without a command line: the defaults, except
// those that are set.
func FlagValues(declared []Flag, set map[string]string) Flags {
	values := flagValues{}
	for _, f := range declared {
		values[f.Name] = f.Default
	}
	for name, value := range set {
		values[name] = value
	}
	return DeclaredFlags(declared, values)
}

type flagValues map[string]string

func (v flagValues) String(name string) string { return v[name] }
func (v flagValues) Bool(name string) bool     { return v[name] == "true" }
