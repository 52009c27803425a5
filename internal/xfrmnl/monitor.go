package xfrmnl

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Expire is told when an SA reaches a limit: once when it is a soft one, and once when a hard one has removed it.
type Expire struct {
	State // without sequence numbers
	Hard  bool
}

// Acquire is told when a packet wants an SA that is not there, and not again until the kernel gives up waiting for one.
type Acquire struct {
	Src, Dst netip.Addr // of the tunnel
	ReqID    uint32
	Policy   uint32 // its index
}

// Deleted is told when an SA was removed, with its last counters and sequence numbers, of a Monitor by WatchSAs.
type Deleted struct{ State }

// ErrLost: the kernel had more to tell than the socket had room for, so expiries and acquisitions may be missing.
var ErrLost = errors.New("messages of the kernel were lost")

// Monitor receives what the kernel tells. Next is for one goroutine, Close for any.
type Monitor struct {
	file *os.File
	raw  syscall.RawConn
	read []byte
	left []byte
}

// Watch opens a Monitor of expiries and acquisitions in the namespace of the calling thread. The caller closes it.
func Watch() (*Monitor, error) { return watch(1<<(groupAcquire-1) | 1<<(groupExpire-1)) }

// WatchSAs opens a Monitor of expiries and of SAs that are removed, whoever does it. The kernel's messages have keys in
// them, which are wiped after each.
func WatchSAs() (*Monitor, error) { return watch(1<<(groupExpire-1) | 1<<(groupSA-1)) }

func watch(groups uint32) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // what is not given costs a look at every SA
	m := &Monitor{file: os.NewFile(uintptr(fd), "xfrm"), read: make([]byte, 64<<10)}
	if m.raw, err = m.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return m, nil
}

// Close makes Next return os.ErrClosed.
func (m *Monitor) Close() error { return m.file.Close() }

// Next waits for a message, which is an Expire or an Acquire. After ErrLost it goes on.
func (m *Monitor) Next() (any, error) {
	for {
		for len(m.left) > 0 {
			msg, rest, ok := message(m.left)
			m.left = rest
			if !ok {
				m.left = nil
				return nil, errTruncated
			}
			if told, err := parseTold(msg); told != nil || err != nil {
				return told, err
			}
		}
		clear(m.read)
		var n int
		var from unix.Sockaddr
		var failed error
		if err := m.raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), m.read, 0)
			return failed != unix.EAGAIN && failed != unix.EINTR
		}); err != nil { // it has its own word for a file that was closed
			return nil, fmt.Errorf("%w: %w", os.ErrClosed, err)
		}
		switch {
		case failed == unix.ENOBUFS:
			return nil, ErrLost
		case failed != nil:
			return nil, os.NewSyscallError("recvfrom", failed)
		}
		// Any process of the namespace that may do so can send to us; only the kernel is believed.
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 {
			m.left = m.read[:n]
		}
	}
}

const (
	sizeExpire  = sizeInfo + 8
	sizeAcquire = 280
)

// parseTold reads a message; nil is one that nobody asked for.
func parseTold(m header) (any, error) {
	switch m.kind {
	case msgExpire:
		if len(m.payload) < sizeExpire {
			return nil, errTruncated
		}
		// The attributes come after the hard byte, those of an SA right after its structure.
		b := append(m.payload[:sizeInfo:sizeInfo], m.payload[sizeExpire:]...)
		s, err := parseState(b)
		return Expire{s, m.payload[sizeInfo] != 0}, err
	case msgAcquire:
		if len(m.payload) < sizeAcquire {
			return nil, errTruncated
		}
		b := m.payload
		a := Acquire{Policy: native.Uint32(b[96+156:])}
		for kind, value := range attributes(b[sizeAcquire:]) {
			if kind == attrTmpl && len(value) >= sizeTemplate {
				v6 := native.Uint16(value[24:]) == unix.AF_INET6
				a.Dst, a.Src, a.ReqID = addr(value, v6), addr(value[28:], v6), native.Uint32(value[44:])
				break
			}
		}
		return a, nil
	case msgDelSA:
		if len(m.payload) < sizeSAID {
			return nil, errTruncated
		}
		// The SA is the first attribute and not the message itself; its own attributes follow.
		for kind, value := range attributes(m.payload[sizeSAID:]) {
			if kind == attrSA {
				s, err := parseState(value)
				if next := sizeSAID + unix.SizeofNlAttr + align(len(value)); next < len(m.payload) {
					s.read(m.payload[next:])
				}
				return Deleted{s}, err
			}
			break
		}
		return nil, errTruncated
	}
	return nil, nil
}
