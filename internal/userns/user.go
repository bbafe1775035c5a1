package userns

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// CurrentUser returns the user of this process. If /etc/passwd does not have the
// user, as in containers of Kubernetes and OpenShift, the name is $USER (which
// may be right, since other databases are not consulted) or else the number.
func CurrentUser() (*user.User, error) {
	uid := os.Getuid()
	u, err := user.LookupId(strconv.Itoa(uid))
	var unknown user.UnknownUserIdError
	switch {
	case err == nil:
		return u, nil
	case errors.As(err, &unknown):
		number := strconv.Itoa(uid)
		return &user.User{Uid: number, Gid: strconv.Itoa(os.Getgid()), Username: number}, nil
	}
	return nil, fmt.Errorf("looking up the user %d: %w", uid, err)
}

// InPasswd reports whether /etc/passwd has a user with this id.
func InPasswd(uid int) bool {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[2] == strconv.Itoa(uid) {
			return true
		}
	}
	return false
}
