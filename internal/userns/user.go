package userns

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// CurrentUser is the user that this process belongs to. One that /etc/passwd
// does not have, as Kubernetes and OpenShift run containers, has $USER for a name
// (it may be right: other databases are not asked), or else its number.
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

// InPasswd reports whether /etc/passwd has a user of this id.
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
