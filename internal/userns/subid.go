package userns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// Source says where subordinate ids are looked up.
type Source string

// The values of --subid-source.
const (
	// SourceAuto is dynamic if nsswitch.conf(5) names a subid database other than
	// files, and static otherwise.
	SourceAuto Source = "auto"
	// SourceDynamic executes getsubids(1), which asks the databases of
	// nsswitch.conf.
	SourceDynamic Source = "dynamic"
	// SourceStatic reads /etc/subuid and /etc/subgid.
	SourceStatic Source = "static"
)

// ParseSource checks a value of --subid-source.
func ParseSource(s string) (Source, error) {
	switch src := Source(s); src {
	case SourceAuto, SourceDynamic, SourceStatic:
		return src, nil
	case "":
		return SourceAuto, nil
	}
	return "", fmt.Errorf("unknown subid source %q", s)
}

// Range is a range of ids of the host that a user may map (subuid(5)).
type Range struct {
	Start, Count uint32
}

// SubIDs are the subordinate ids of a user.
type SubIDs struct {
	UIDs, GIDs []Range
}

// LookupSubIDs finds the subordinate ids of u. A user without any gets empty
// lists, not an error.
func LookupSubIDs(ctx context.Context, source Source, u *user.User) (SubIDs, error) {
	if source == SourceDynamic || source == SourceAuto && dynamicConfigured("/etc/nsswitch.conf") {
		ids, err := dynamicSubIDs(ctx, u)
		if err == nil || source == SourceDynamic {
			return ids, err
		}
	}
	return staticSubIDs(u)
}

func staticSubIDs(u *user.User) (ids SubIDs, err error) {
	if ids.UIDs, err = readSubIDFile("/etc/subuid", u); err != nil {
		return SubIDs{}, err
	}
	if ids.GIDs, err = readSubIDFile("/etc/subgid", u); err != nil {
		return SubIDs{}, err
	}
	return ids, nil
}

func readSubIDFile(path string, u *user.User) ([]Range, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading subordinate ids: %w", err)
	}
	defer f.Close()
	ranges, err := parseSubIDs(f, u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ranges, nil
}

// parseSubIDs reads the lines NAME-OR-UID:START:COUNT of the user. It does not
// validate the lines of other users.
func parseSubIDs(r io.Reader, u *user.User) ([]Range, error) {
	var ranges []Range
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		owner, rest, _ := strings.Cut(line, ":")
		if strings.HasPrefix(line, "#") || owner == "" || owner != u.Username && owner != u.Uid {
			continue
		}
		start, count, _ := strings.Cut(rest, ":")
		rg, err := parseRange(start, count)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		ranges = append(ranges, rg)
	}
	return ranges, lines.Err()
}

func parseRange(start, count string) (Range, error) {
	s, err := strconv.ParseUint(strings.TrimSpace(start), 10, 32)
	if err != nil {
		return Range{}, fmt.Errorf("start of the range: %w", err)
	}
	c, err := strconv.ParseUint(strings.TrimSpace(count), 10, 32)
	if err != nil {
		return Range{}, fmt.Errorf("length of the range: %w", err)
	}
	if s+c > 1<<32 {
		return Range{}, fmt.Errorf("range %d+%d is beyond 32 bits", s, c)
	}
	return Range{Start: uint32(s), Count: uint32(c)}, nil
}

// dynamicConfigured reports whether nsswitch.conf names a subid source other
// than files.
func dynamicConfigured(path string) bool {
	conf, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(conf)) {
		line, _, _ = strings.Cut(line, "#")
		db, sources, _ := strings.Cut(line, ":")
		if strings.TrimSpace(db) == "subid" {
			s := strings.TrimSpace(sources)
			return s != "" && s != "files"
		}
	}
	return false
}

func dynamicSubIDs(ctx context.Context, u *user.User) (ids SubIDs, err error) {
	if ids.UIDs, err = getsubids(ctx, u.Username); err != nil {
		return SubIDs{}, err
	}
	if ids.GIDs, err = getsubids(ctx, "-g", u.Username); err != nil {
		return SubIDs{}, err
	}
	return ids, nil
}

func getsubids(ctx context.Context, args ...string) ([]Range, error) {
	out, err := exec.CommandContext(ctx, "getsubids", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("getsubids %s: %w", strings.Join(args, " "), err)
	}
	return parseGetsubids(string(out))
}

// parseGetsubids reads lines like "0: alice 100000 65536".
func parseGetsubids(out string) ([]Range, error) {
	var ranges []Range
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 4 {
			return nil, fmt.Errorf("getsubids printed %q, expected 4 fields", strings.TrimSpace(line))
		}
		rg, err := parseRange(fields[2], fields[3])
		if err != nil {
			return nil, fmt.Errorf("getsubids printed %q: %w", strings.TrimSpace(line), err)
		}
		ranges = append(ranges, rg)
	}
	return ranges, nil
}
