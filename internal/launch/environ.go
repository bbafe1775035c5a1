package launch

import "strings"

// setenv replaces a variable in a list such as os.Environ's.
func setenv(env []string, name, value string) []string {
	return append(unsetenv(env, name), name+"="+value)
}

// unsetenv returns the list without some variables.
func unsetenv(env []string, names ...string) []string {
	var out []string
next:
	for _, e := range env {
		for _, name := range names {
			if strings.HasPrefix(e, name+"=") {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

// getenv returns the value of a variable; empty if it is not set.
func getenv(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}
