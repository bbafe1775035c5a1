// Package suggest guesses the name that a mistyped one was meant to be.
package suggest

import "strings"

// Nearest returns the name with the fewest edits from s (insertions, deletions,
// replacements, and swaps of two neighbours), or "" if none is near. A name is
// near if at most a third of s is wrong, or a single edit. It is also near if it
// is the only name that begins with s, which must have at least three letters.
func Nearest(s string, names []string) string {
	best, fewest := "", max(1, len(s)/3)+1
	for _, name := range names {
		if n := distance(s, name); n < fewest {
			best, fewest = name, n
		}
	}
	if best == "" && len(s) >= 3 {
		return completed(s, names)
	}
	return best
}

// completed returns the only name that begins with s, or "".
func completed(s string, names []string) (only string) {
	for _, name := range names {
		switch {
		case !strings.HasPrefix(name, s):
		case only != "":
			return ""
		default:
			only = name
		}
	}
	return only
}

// distance is the optimal string alignment distance of two names.
func distance(a, b string) int {
	// rows[i][j] is the distance of the first i bytes of a and j of b.
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
