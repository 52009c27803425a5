package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// wakeup ends waits of other threads, for good.
type wakeup struct{ fd int }

func newWakeup() (wakeup, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return wakeup{}, fmt.Errorf("eventfd: %w", err)
	}
	return wakeup{fd}, nil
}

func (w wakeup) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(w.fd, one[:]) // it fails only where it is full, and so awake
}

func (w wakeup) close() error { return unix.Close(w.fd) }

// wait waits for one of the events or an error on fd, and returns what came; it is false when the wakeup did.
func (w wakeup) wait(fd int, events int16) (int16, bool) {
	fds := [2]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(w.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return fds[0].Revents, err == nil && fds[1].Revents == 0
	}
}
