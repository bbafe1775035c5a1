package netns

// For tests.
var (
	OwnSocket  = own
	OwnByInode = ownByInode
	ErrOfHost  = errOfHost
)
