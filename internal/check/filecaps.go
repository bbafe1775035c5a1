package check

import "encoding/binary"

// Numbers from capabilities(7).
const (
	capSetgid = 6
	capSetuid = 7
)

// hasFileCap reports whether a program gets a capability when it is executed.
// The attribute is a struct vfs_cap_data (linux/capability.h), which is
// little-endian on every architecture: a version with flags, then the low words
// of the permitted and inheritable sets.
func hasFileCap(attr []byte, capability uint) bool {
	const effective = 1
	if len(attr) < 12 || capability > 31 {
		return false
	}
	magic, permitted := binary.LittleEndian.Uint32(attr), binary.LittleEndian.Uint32(attr[4:])
	return magic&effective != 0 && permitted&(1<<capability) != 0
}
