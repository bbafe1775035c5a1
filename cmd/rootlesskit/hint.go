package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/suggest"
)

// hintedError is an error with a line of advice. Clients compare the texts of
// errors, so the advice is not part of the text.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// hint returns the advice that comes with an error, or "".
func hint(err error) string {
	var hinted *hintedError
	if errors.As(err, &hinted) {
		return hinted.hint
	}
	return ""
}

// unknownName adds advice to an error about a name that no driver has.
func unknownName(err error) error {
	var unknown *driver.UnknownError
	if !errors.As(err, &unknown) {
		return err
	}
	text := "known: " + strings.Join(unknown.Known, ", ")
	if near := suggest.Nearest(unknown.Name, unknown.Known); near != "" {
		text = fmt.Sprintf("did you mean %q? %s", near, text)
	}
	return &hintedError{err, text}
}

// flagHint suggests the flag that is most similar to a mistyped one.
func flagHint(err error, flags []cli.Flag) error {
	_, name, found := strings.Cut(err.Error(), "flag provided but not defined: -")
	if !found {
		return badValue(err)
	}
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	text := "rootlesskit --help lists the options"
	switch near := suggest.Nearest(strings.TrimLeft(name, "-"), names); len(near) {
	case 0:
	case 1:
		text = fmt.Sprintf("did you mean -%s? %s", near, text)
	default:
		text = fmt.Sprintf("did you mean --%s? %s", near, text)
	}
	return &hintedError{err, text}
}

// badValue says which value a flag needs, in place of the message of Go's parser.
func badValue(err error) error {
	for of, want := range map[string]string{
		": strconv.ParseInt: ": "a whole number is needed",
		": parse error":        "true or false is needed",
	} {
		if what, _, found := strings.Cut(err.Error(), of); found {
			return fmt.Errorf("%s: %s", what, want)
		}
	}
	return err
}
