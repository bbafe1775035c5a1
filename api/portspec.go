package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ProxyProtocolV2 is the value of PortSpec.ProxyProtocol.
const ProxyProtocolV2 = "v2"

// ParsePortSpec parses a port spec such as "127.0.0.1:8080:80/tcp":
//
//	[PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO
//
// Docker's short forms PARENTPORT:CHILDPORT, for TCP, and
// PARENTPORT:CHILDPORT/PROTO, both on all addresses, are accepted too.
//
// An IPv6 address is written in brackets, which the result does not have;
// brackets around an IPv4 address are optional. Blanks around an address or a
// port are ignored. Nothing else is normalised, and the range of the ports is
// not checked: see Validate.
func ParsePortSpec(s string) (PortSpec, error) {
	if isPortPair(splitFields(s)) {
		return ParsePortSpec(s + "/tcp")
	}
	addresses, name, ok := cutLast(s, "/")
	if !ok {
		return PortSpec{}, missingProto(s)
	}
	proto := Proto(name)
	if err := validateProto(proto); err != nil {
		return PortSpec{}, fmt.Errorf("invalid PortSpec string: %q: %w", s, err)
	}
	fields := splitFields(addresses)
	if isPortPair(fields) {
		fields = append([]string{""}, fields...)
	}
	if len(fields) < 2 {
		return PortSpec{}, malformed(s)
	}
	spec := PortSpec{Proto: proto}
	if spec.ParentIP, ok = parseIP(fields[0]); !ok {
		return PortSpec{}, fmt.Errorf("unexpected ParentIP in PortSpec string: %q", s)
	}
	switch len(fields) {
	case 3:
	case 4:
		if spec.ChildIP, ok = parseIP(fields[2]); !ok {
			return PortSpec{}, fmt.Errorf("unexpected ChildIP in PortSpec string: %q", s)
		}
	default:
		return PortSpec{}, malformed(s)
	}
	var err error
	if spec.ParentPort, err = strconv.Atoi(fields[1]); err != nil {
		return PortSpec{}, fmt.Errorf("unexpected ParentPort in PortSpec string: %q: %w", s, err)
	}
	if spec.ChildPort, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
		return PortSpec{}, fmt.Errorf("unexpected ChildPort in PortSpec string: %q: %w", s, err)
	}
	return spec, nil
}

// specForm is how a spec is written.
const specForm = "[PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO with IPv6 addresses in brackets"

func malformed(s string) error {
	return fmt.Errorf("unexpected PortSpec string: %q: not of the form "+specForm, s)
}

// missingProto suggests TCP if only the protocol is missing.
func missingProto(s string) error {
	advice := "the form is " + specForm
	if guess := s + "/tcp"; strings.Contains(s, ":") {
		if _, err := ParsePortSpec(guess); err == nil {
			advice = fmt.Sprintf("did you mean %q?", guess)
		}
	}
	return fmt.Errorf("missing proto in PortSpec string: %q: %s", s, advice)
}

// isPortPair reports whether the fields are two numbers.
func isPortPair(fields []string) bool {
	return len(fields) == 2 && !slices.ContainsFunc(fields, func(f string) bool {
		_, err := strconv.ParseUint(f, 10, 32)
		return err != nil
	})
}

// String returns the spec in the form that ParsePortSpec parses.
func (s PortSpec) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:", bracketIPv6(s.ParentIP), s.ParentPort)
	if s.ChildIP != "" {
		fmt.Fprintf(&b, "%s:", bracketIPv6(s.ChildIP))
	}
	fmt.Fprintf(&b, "%d/%s", s.ChildPort, s.Proto)
	return b.String()
}

// Validate returns an error for the first field that no port driver could
// accept: an unknown protocol, a text that is not an IP address, a port outside
// 1 to 65535, or a version of the PROXY protocol that does not exist or does not
// go with the protocol.
func (s PortSpec) Validate() error {
	if err := validateProto(s.Proto); err != nil {
		return err
	}
	if !isIP(s.ParentIP) {
		return fmt.Errorf("invalid ParentIP: %q", s.ParentIP)
	}
	if !isIP(s.ChildIP) {
		return fmt.Errorf("invalid ChildIP: %q", s.ChildIP)
	}
	if !isPort(s.ParentPort) {
		return fmt.Errorf("invalid ParentPort: %d", s.ParentPort)
	}
	if !isPort(s.ChildPort) {
		return fmt.Errorf("invalid ChildPort: %d", s.ChildPort)
	}
	return s.validateProxyProtocol()
}

func (s PortSpec) validateProxyProtocol() error {
	switch {
	case s.ProxyProtocol == "":
		return nil
	case s.ProxyProtocol != ProxyProtocolV2:
		return fmt.Errorf("unknown proxyProtocol: %q (expected %q)", s.ProxyProtocol, ProxyProtocolV2)
	case s.Proto.Transport() != TCP:
		return fmt.Errorf("proxyProtocol %q is for tcp ports only, not for %s", s.ProxyProtocol, s.Proto)
	}
	return nil
}

func validateProto(proto Proto) error {
	if !proto.known() {
		return fmt.Errorf("unknown proto: %q", proto)
	}
	return nil
}

// isIP accepts the empty string, which leaves the choice to the driver. It
// refuses zones: they name interfaces, which differ between host and namespace.
func isIP(s string) bool {
	if s == "" {
		return true
	}
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Zone() == ""
}

func isPort(n int) bool { return n >= 1 && n <= 65535 }

// parseIP removes the brackets from an address.
func parseIP(field string) (ip string, ok bool) {
	if inner, found := strings.CutPrefix(field, "["); found {
		if field, found = strings.CutSuffix(inner, "]"); !found {
			return "", false
		}
	}
	return field, isIP(field)
}

func bracketIPv6(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

// splitFields splits at the colons outside of brackets and trims each field.
func splitFields(s string) []string {
	var fields []string
	inBrackets, start := false, 0
	for i, c := range s {
		switch {
		case c == '[':
			inBrackets = true
		case c == ']':
			inBrackets = false
		case c == ':' && !inBrackets:
			fields = append(fields, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(fields, strings.TrimSpace(s[start:]))
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
