//go:build 386 || arm || mips || mipsle

package launch

import "golang.org/x/sys/unix"

func setWord(set *unix.Sigset_t, i int, v uint64) { set.Val[i] = uint32(v) }
