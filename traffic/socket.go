package traffic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr of sendmmsg(2) and recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func sendmmsg(fd uintptr, m []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

func recvmmsg(fd uintptr, m []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

// control calls f with the descriptor.
func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// setBuffer makes a socket's buffer as large as it is let: beyond net.core.*mem_max where we may.
func setBuffer(fd, force, polite, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		// An ordinary user gets less than asked for, never an error; what it costs shows in SocketDrops.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, polite, size)
	}
}

// socketDrops reads how many buffers a socket refused because it was full (SK_MEMINFO_DROPS, Linux 4.12).
func socketDrops(fd int) (uint32, error) {
	var mem [unix.SK_MEMINFO_DROPS + 1]uint32
	size := uint32(unsafe.Sizeof(mem))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0, fmt.Errorf("getsockopt SO_MEMINFO: %w", e)
	}
	return mem[unix.SK_MEMINFO_DROPS], nil
}

// sleepUntil waits for t within about 100 µs and without a runtime timer, whose wake-ups come several times later.
// It looks at ctx every 20 ms, and reports whether that is still alive.
func sleepUntil(ctx context.Context, c clock, t Instant) bool {
	const slice = Instant(20e6)
	for {
		if ctx.Err() != nil {
			return false
		}
		now := c.now()
		if now >= t {
			return true
		}
		ts := unix.NsecToTimespec(int64(min(t, now+slice)))
		// An early return (EINTR: Go preempts with signals) is answered by the loop.
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
	}
}

func network(proto string, a netip.Addr) string {
	if a.Unmap().Is4() {
		return proto + "4"
	}
	return proto + "6"
}

func localUDP(a netip.Addr) *net.UDPAddr {
	if !a.IsValid() {
		return nil
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
}
