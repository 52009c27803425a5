package capture

import (
	"time"

	"golang.org/x/sys/unix"
)

// stampsPatience bounds the wait for the kernel to begin stamping.
const stampsPatience = 200 * time.Millisecond

// awaitStamps returns when the kernel stamps packets as they pass. It begins to some milliseconds after the first socket of
// the machine has asked for it; until then a packet bears the time at which it was read, and order means nothing. The
// caller has such a socket. Where that cannot be tried, for want of a loopback interface, it is not waited for.
func awaitStamps() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) != nil || unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) != nil {
		return
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return
	}
	for deadline := time.Now().Add(stampsPatience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if unix.Sendto(fd, []byte{0}, 0, own) != nil {
			return
		}
		var b [1]byte
		var ctl [128]byte
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, 10); err != nil {
			continue
		}
		before := time.Now().UnixNano()
		_, n, _, _, err := unix.Recvmsg(fd, b[:], ctl[:], 0)
		if err != nil {
			continue
		}
		if at, _ := control(ctl[:n]); at > 0 && at < before {
			return
		}
	}
}
