// Package inherit says which open descriptors a child process would get.
package inherit

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Closed stands, in the Files of a syscall.ProcAttr, for a descriptor that the child does not get.
const Closed = ^uintptr(0)

// Descriptors returns, in order, the open descriptors from 3 on that survive an exec: those without FD_CLOEXEC. Go opens
// none of that kind, so they were given to this process by its parent.
func Descriptors() ([]int, error) {
	// Not os.ReadDir, whose own descriptor would be among them only to be closed when it returns; it has FD_CLOEXEC and
	// falls out below, or is gone, and so does every other that closes meanwhile.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list open descriptors: %w", err)
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds, nil
}

// All returns the Files with which a child gets standard input, output and error and every descriptor that this process
// was given, each under its number. The gaps are named too: syscall.ForkExec keeps its own pipe in the numbers behind
// the last one named, and would overwrite a descriptor there.
func All() ([]uintptr, error) {
	fds, err := Descriptors()
	if err != nil {
		return nil, err
	}
	files := closed(fds)
	copy(files, []uintptr{0, 1, 2})
	for _, fd := range fds {
		files[fd] = uintptr(fd)
	}
	return files, nil
}

// Only returns the Files with which a child gets the three given as standard input, output and error, and none of what
// this process was given.
func Only(stdin, stdout, stderr uintptr) ([]uintptr, error) {
	fds, err := Descriptors()
	if err != nil {
		return nil, err
	}
	files := closed(fds)
	copy(files, []uintptr{stdin, stdout, stderr})
	return files, nil
}

// closed returns Files that reach to the last of fds and pass on nothing.
func closed(fds []int) []uintptr {
	n := 3
	if len(fds) > 0 {
		n = fds[len(fds)-1] + 1
	}
	return slices.Repeat([]uintptr{Closed}, n)
}
