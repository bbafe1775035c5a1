package driver

import "slices"

// Flag is a command-line flag of a driver.
type Flag struct {
	Name    string
	Kind    FlagKind
	Default string // "true" or, as if it were empty, "false" for a Bool
	Usage   string
	Values  []string // all that there are; nil: any
	// Category is where help lists the flag; empty: where it lists the driver.
	Category string
	// Hidden says that the flag is accepted for old command lines, and help has none
	// of it.
	Hidden bool
	// Strict says that the flag is refused where another driver is in use, else it is
	// ignored then.
	Strict bool
}

// FlagKind is what the value of a flag is.
type FlagKind int

// The kinds of flags.
const (
	String FlagKind = iota
	Bool
	File // a String, the name or path of a file
)

// Flags is how a driver reads its own flags.
type Flags interface {
	String(name string) string
	Bool(name string) bool
}

// DeclaredFlags gives a driver the values of the flags that it has declared, and
// panics at others: a flag whose name is mistyped is not one that is empty.
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

// FlagValues are the flags of a driver without a command line: the defaults but for
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
