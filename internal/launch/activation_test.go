package launch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// layout writes a layout of descriptors as "number<-source".
func layout(files []uintptr) string {
	var parts []string
	for at, fd := range files {
		if at > 2 && fd != ^uintptr(0) {
			parts = append(parts, fmt.Sprintf("%d<-%d", at, fd))
		}
	}
	return strings.Join(parts, " ")
}

func TestLeaveOut(t *testing.T) {
	for _, tt := range []struct {
		taken, inherited []int
		fds, names       string
		files, env       string
	}{
		{[]int{3}, []int{3, 4, 5}, "3", "a:b:c", "3<-4 4<-5", "LISTEN_FDS=2 LISTEN_FDNAMES=b:c"},
		{[]int{4}, []int{3, 4, 5}, "3", "a:b:c", "3<-3 4<-5", "LISTEN_FDS=2 LISTEN_FDNAMES=a:c"},
		{[]int{3, 4}, []int{3, 4}, "2", "a:b", "", ""},
		{[]int{3}, []int{3, 4, 7}, "2", "", "3<-4 7<-7", "LISTEN_FDS=1"},                     // 7 is no socket of systemd's
		{[]int{3}, []int{3, 4, 5}, "2", "a:b", "3<-4 5<-5", "LISTEN_FDS=1 LISTEN_FDNAMES=b"}, // nor is 5
		{[]int{4}, []int{4, 6}, "4", "a:b:c:d", "3<-6", "LISTEN_FDS=1 LISTEN_FDNAMES=d"},
		{[]int{3}, []int{3, 4}, "2", "a", "3<-4", "LISTEN_FDS=1 LISTEN_FDNAMES="}, // a name is missing
	} {
		env := []string{"A=1", "LISTEN_PID=7", "LISTEN_FDS=" + tt.fds}
		if tt.names != "" {
			env = append(env, "LISTEN_FDNAMES="+tt.names)
		}
		files, got := leaveOut(tt.taken, tt.inherited, env)
		want := []string{"A=1"}
		if tt.env != "" {
			want = append(append(want, "LISTEN_PID=7"), strings.Fields(tt.env)...)
		}
		if layout(files) != tt.files || !slices.Equal(got, want) {
			t.Errorf("%+v: got %s, %q", tt, layout(files), got)
		}
	}
}

func TestActivationFDs(t *testing.T) {
	for _, tt := range []struct {
		inherited []int
		count     string
		want      string
	}{
		{[]int{3, 4, 5}, "2", "[3 4]"},
		{[]int{5, 3}, "2147483647", "[3 5]"},
		{[]int{3}, "", "[]"},
		{[]int{3}, "-1", "[]"},
		{[]int{3}, "99999999999999999999", "[]"},
		{nil, "1", "[]"},
	} {
		if got := fmt.Sprint(activationFDs(tt.inherited, tt.count)); got != tt.want {
			t.Errorf("%v of %v: %s, want %s", tt.count, tt.inherited, got, tt.want)
		}
	}
}
