package launch

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"rootlesskit/internal/driver"
)

// What resolv.conf(5) allows for the domains to search: resolvers that keep to it
// ignore the rest, and musl's a line that is longer.
const (
	maxSearchDomains = 6
	maxSearchLine    = 254
)

// resolvConf is the child's resolv.conf: the network's name servers, with the
// domains to search and the options of the host's, so that names of a company's
// domain are found.
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

// searchAndOptions reads a resolv.conf. The last line of "search", or "domain",
// which is a search of one, holds; options add up.
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

// searchLine has as many of the domains as fit.
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
