package launch

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"rootlesskit/internal/driver"
)

// These are the limits of resolv.conf(5) for search domains. Resolvers that
// follow them ignore the rest, and musl ignores the whole line if it is longer.
const (
	maxSearchDomains = 6
	maxSearchLine    = 254
)

// resolvConf returns the child's resolv.conf: the network's name servers, with
// the search domains and options of the host, so that short names of a
// company's domain are found.
func resolvConf(link driver.Link, host []byte) []byte {
	var b bytes.Buffer
	search, options := searchAndOptions(host)
	if line := searchLine(search); line != "" {
		fmt.Fprintln(&b, line)
	}
	for _, dns := range link.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", dns)
	}
	if len(options) > 0 {
		fmt.Fprintln(&b, "options", strings.Join(options, " "))
	}
	return b.Bytes()
}

// searchAndOptions parses a resolv.conf. The last "search" line counts, or the
// last "domain" line, which is a search list of one; options add up.
func searchAndOptions(host []byte) (search, options []string) {
	for lines := bufio.NewScanner(bytes.NewReader(host)); lines.Scan(); {
		text := lines.Text()
		if end := strings.IndexAny(text, "#;"); end >= 0 {
			text = text[:end]
		}
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "search":
			search = fields[1:]
		case "domain":
			search = fields[1:2]
		case "options":
			options = append(options, fields[1:]...)
		}
	}
	return search, options
}

// searchLine returns a line with as many of the domains as fit.
func searchLine(domains []string) string {
	line := "search"
	for i, d := range domains {
		if i == maxSearchDomains || len(line)+1+len(d) > maxSearchLine {
			break
		}
		line += " " + d
	}
	if line == "search" {
		return ""
	}
	return line
}
