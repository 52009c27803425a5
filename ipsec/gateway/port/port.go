// Package port makes the inner interface of a gateway: an interface of the node whose far end is the process. The kernel
// routes packets into it, and takes packets from it as received. Both kinds move super-packets with a virtio_net_hdr.
//
//	tun     a TUN device; needs /dev/net/tun
//	packet  a veth pair whose far end is read and written through AF_PACKET; needs CAP_NET_RAW in the namespace only
package port

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/offload"
)

// Kind of a port.
type Kind string

const (
	Auto   Kind = "auto" // TUN when it can be opened, Packet otherwise
	TUN    Kind = "tun"
	Packet Kind = "packet"
)

// Lack is the kind of error that says what this machine has not got. Each is errors.ErrUnsupported.
type Lack string

func (l Lack) Error() string      { return string(l) }
func (Lack) Is(target error) bool { return target == errors.ErrUnsupported }

// ErrUnavailable says that this machine cannot make a port of the kind asked for.
var ErrUnavailable error = Lack("no inner port")

// BufferLen is the size in bytes of a buffer for Read: headers and the largest packet.
const BufferLen = offload.HeaderLen + ethernetLen + 65535

const ethernetLen = 14

// Port is an inner interface. Read is for one goroutine, the rest for any.
type Port struct {
	kind     Kind
	name     string
	near     netlink.Link
	fd       int
	link     int      // bytes of link header, 0 or ethernetLen
	ethernet [12]byte // destination and source of what is written
	remove   func() error
}

// Open makes a port in the namespace of the calling thread, down, and without IPv6 addresses of its own. h is a handle of
// that namespace.
func Open(kind Kind, name string, h *netlink.Handle) (*Port, error) {
	var p *Port
	var err error
	switch kind {
	case Auto, "":
		if p, err = openTUN(name, h); errors.Is(err, ErrUnavailable) {
			var packetErr error
			if p, packetErr = openPacket(name, h); packetErr != nil {
				return nil, errors.Join(err, packetErr)
			}
			err = nil
		}
	case TUN:
		p, err = openTUN(name, h)
	case Packet:
		p, err = openPacket(name, h)
	default:
		return nil, fmt.Errorf("port %q: kind is none of auto, tun, packet", kind)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Kind is TUN or Packet.
func (p *Port) Kind() Kind { return p.kind }

// Name of the interface.
func (p *Port) Name() string { return p.name }

// Index of the interface.
func (p *Port) Index() int { return p.near.Attrs().Index }

// FD is for waiting until Read has something.
func (p *Port) FD() int { return p.fd }

// Up makes the interface work.
func (p *Port) Up(h *netlink.Handle) error {
	if err := h.LinkSetUp(p.near); err != nil {
		return fmt.Errorf("interface %s: up: %w", p.name, err)
	}
	return nil
}

// SetMTU sets the interface's MTU in bytes.
func (p *Port) SetMTU(h *netlink.Handle, mtu int) error {
	if err := h.LinkSetMTU(p.near, mtu); err != nil {
		return fmt.Errorf("interface %s: MTU %d: %w", p.name, mtu, err)
	}
	return nil
}

// Close removes the interface.
func (p *Port) Close() error { return p.remove() }

// Read returns the next packet, which lies in buf (of BufferLen bytes), and its header. It does not wait: unix.EAGAIN
// says that there is none.
func (p *Port) Read(h *offload.Header, buf []byte) ([]byte, error) {
	var n uintptr
	var errno unix.Errno
	if p.kind == TUN {
		n, _, errno = unix.Syscall(unix.SYS_READ, uintptr(p.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, uintptr(p.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
			unix.MSG_DONTWAIT, 0, 0)
	}
	if errno != 0 {
		return nil, errno
	}
	start := offload.HeaderLen + p.link
	if int(n) <= start {
		return nil, nil
	}
	h.Decode(buf)
	if h.Flags&offload.NeedsChecksum != 0 {
		h.CsumStart -= uint16(p.link) // one that lies in the link header wraps, and is refused as out of the packet
	}
	return buf[start:n], nil
}

// Writer writes packets into a port. Each goroutine has its own.
type Writer struct {
	port   *Port
	header [offload.HeaderLen + ethernetLen]byte
	iov    []unix.Iovec
}

// Writer makes a Writer.
func (p *Port) Writer() *Writer {
	w := &Writer{port: p}
	copy(w.header[offload.HeaderLen:], p.ethernet[:])
	return w
}

// Write hands one IP packet, in pieces, to the kernel as received on the interface.
func (w *Writer) Write(h *offload.Header, pieces [][]byte) error {
	link := w.port.link
	hdr := *h
	if link != 0 {
		ethertype := uint16(unix.ETH_P_IP)
		if pieces[0][0]>>4 == 6 {
			ethertype = unix.ETH_P_IPV6
		}
		w.header[offload.HeaderLen+12], w.header[offload.HeaderLen+13] = byte(ethertype>>8), byte(ethertype)
		if hdr.Flags&offload.NeedsChecksum != 0 {
			hdr.CsumStart += uint16(link)
			hdr.HeaderLen += uint16(link)
		}
	}
	hdr.Encode(w.header[:])
	w.iov = w.iov[:0]
	w.add(w.header[:offload.HeaderLen+link])
	for _, piece := range pieces {
		w.add(piece)
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(w.port.fd), uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

func (w *Writer) add(piece []byte) {
	v := unix.Iovec{Base: &piece[0]}
	v.SetLen(len(piece))
	w.iov = append(w.iov, v)
}

// prepare finds the interface and keeps it from having addresses that nobody asked for.
func prepare(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	// A kernel without IPv6 has no such mode, and no such addresses either.
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err = h.LinkSetIP6AddrGenMode(link, none)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("interface %s: no IPv6 link-local address: %w", name, err)
	}
	return link, nil
}
