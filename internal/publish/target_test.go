package publish

import (
	"testing"

	"rootlesskit/api"
)

func TestTarget(t *testing.T) {
	for _, c := range []struct{ parent, child, want string }{
		{"", "", "127.0.0.1:80"},
		{"0.0.0.0", "", "127.0.0.1:80"},
		{"::", "", "[::1]:80"},
		{"127.0.0.1", "", "127.0.0.1:80"},
		{"127.0.0.2", "", "127.0.0.2:80"},
		{"::1", "", "[::1]:80"},
		{"203.0.113.5", "", "203.0.113.5:80"},
		{"::ffff:203.0.113.5", "", "203.0.113.5:80"},
		{"203.0.113.6", "", "203.0.113.6:80"},
		{"2001:db8::5", "", "[2001:db8::5]:80"},
		{"fe80::1%eth0", "", "[fe80::1]:80"},
		{"", "10.0.2.100", "10.0.2.100:80"},
		{"127.0.0.2", "127.0.0.1", "127.0.0.1:80"},
		{"0.0.0.0", "::1", "[::1]:80"},
		{"", "::ffff:127.0.0.3", "127.0.0.3:80"},
	} {
		got, err := Target(api.PortSpec{ParentIP: c.parent, ChildIP: c.child, ChildPort: 80})
		if err != nil || got.String() != c.want {
			t.Errorf("parent IP %q, child IP %q: got %v, %v, want %s", c.parent, c.child, got, err, c.want)
		}
	}
	for _, spec := range []api.PortSpec{{ParentIP: "localhost"}, {ChildIP: "10.0.2"}} {
		if got, err := Target(spec); err == nil {
			t.Errorf("%+v leads to %v", spec, got)
		}
	}
}

func TestHostIPv4(t *testing.T) {
	if ip := HostIPv4(); ip.IsValid() && (!ip.Is4() || ip.IsLoopback()) {
		t.Errorf("got %v", ip)
	}
}
