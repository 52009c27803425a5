// Package xfrmnl speaks to the kernel's IPsec over netlink (linux/xfrm.h): security associations, policies, and what the
// kernel tells of them. It exists beside github.com/vishvananda/netlink because that has no ACQUIRE, reads no ESN state,
// takes a limit of zero for none, cannot give an SA's family-independent selector, and leaves keys in its buffers.
package xfrmnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message types.
const (
	msgNewSA     = 0x10
	msgDelSA     = 0x11
	msgGetSA     = 0x12
	msgNewPolicy = 0x13
	msgDelPolicy = 0x14
	msgAllocSPI  = 0x16
	msgAcquire   = 0x17
	msgExpire    = 0x18
	msgUpdPolicy = 0x19
)

// Multicast groups.
const (
	groupAcquire = 1
	groupExpire  = 2
	groupSA      = 3
)

// Conn is a netlink socket for requests. Its methods are safe for concurrent use, one request at a time.
type Conn struct {
	mu   sync.Mutex
	fd   int
	seq  uint32
	read []byte
	warm bool // see Warm
}

// patience is how long the kernel may take to answer, which it does at once but for loading a module.
var patience = unix.Timeval{Sec: 10}

// Dial opens a socket in the namespace of the calling thread. The caller closes it.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{fd: fd, read: make([]byte, 64<<10)}
	if err := errors.Join(
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})),
		os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)),
		// The kernel then says in words what it refuses.
		os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)),
	); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return c, nil
}

// Close frees the socket. A request after it fails with EBADF.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Error is a refusal of the kernel's, with its words where it has some.
type Error struct {
	Errno unix.Errno
	Text  string
}

func (e *Error) Error() string {
	if e.Text != "" {
		return fmt.Sprintf("%v (%s)", e.Errno, e.Text)
	}
	return e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// do sends a request and wipes it. answer, which may be nil, gets the payload of the answer, which is wiped after it.
func (c *Conn) do(kind uint16, flags uint16, payload []byte, answer func([]byte) error) error {
	defer clear(payload[:cap(payload)])
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	c.seq++
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(payload))
	defer clear(request[:cap(request)])
	binary.NativeEndian.PutUint32(request, uint32(unix.SizeofNlMsghdr+len(payload)))
	binary.NativeEndian.PutUint16(request[4:], kind)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	binary.NativeEndian.PutUint32(request[8:], c.seq)
	request = append(request, payload...)
	if err := c.send(request); err != nil {
		return os.NewSyscallError("write", err)
	}
	var failed error
	for {
		n, err := unix.Read(c.fd, c.read)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		done, err := c.answers(c.read[:n], answer)
		clear(c.read[:n])
		failed = errors.Join(failed, err)
		if done {
			return failed
		}
	}
}

// Warm says that the kernel has loaded all modules that later requests take, because SAs like theirs have been installed.
// Such requests take it less than a millisecond, in which Go's scheduler need not step in: where there is one processor,
// it would take that away from whoever is in the kernel for 20 µs, and give it back, which takes as long as an SA does.
func (c *Conn) Warm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warm = true
}

// send hands a request to the kernel, which does what it asks for before this returns.
func (c *Conn) send(request []byte) error {
	if !c.warm {
		_, err := unix.Write(c.fd, request)
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&request[0])), uintptr(len(request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// answers handles one datagram, and says whether it held the acknowledgement.
func (c *Conn) answers(b []byte, answer func([]byte) error) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		m, rest, ok := message(b)
		if !ok {
			return true, errTruncated
		}
		b = rest
		switch {
		case m.seq != c.seq: // of a request that was given up
		case m.kind == unix.NLMSG_ERROR:
			return true, errors.Join(err, refusal(m))
		case answer != nil:
			err = errors.Join(err, answer(m.payload))
		}
	}
	return false, err
}

var errTruncated = errors.New("netlink message is cut short")

type header struct {
	kind, flags uint16
	seq         uint32
	payload     []byte
}

// message cuts the first message off b.
func message(b []byte) (m header, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return m, nil, false
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > len(b) {
		return m, nil, false
	}
	m = header{
		binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]),
		b[unix.SizeofNlMsghdr:n],
	}
	return m, b[min(align(n), len(b)):], true
}

// refusal reads an NLMSG_ERROR; nil is the acknowledgement.
func refusal(m header) error {
	if len(m.payload) < 4 {
		return errTruncated
	}
	code := int32(binary.NativeEndian.Uint32(m.payload))
	if code == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-code)}
	// After the code comes the header of the request, then attributes.
	if at := 4 + unix.SizeofNlMsghdr; m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.payload) > at {
		if m.flags&unix.NLM_F_CAPPED == 0 { // with all of the request
			at = 4 + align(int(binary.NativeEndian.Uint32(m.payload[4:])))
		}
		if at <= len(m.payload) {
			for kind, value := range attributes(m.payload[at:]) {
				if kind == unix.NLMSGERR_ATTR_MSG {
					e.Text = unix.ByteSliceToString(value)
				}
			}
		}
	}
	return e
}

// attributes yields the attributes in b, up to the first that is cut short.
func attributes(b []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// attribute appends one.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

const nlaTypeMask = 0x3fff

func align(n int) int { return (n + 3) &^ 3 }
