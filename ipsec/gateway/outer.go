package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/port"
)

// endpoint is what an outer socket is bound to. Tunnels with the same one share it.
type endpoint struct {
	local         netip.Addr
	encapsulation ipsec.Encapsulation
}

// outer is a socket for ESP packets: UDP with segmentation and GRO, or raw.
type outer struct {
	endpoint
	fd      int           // used by the reader, and by the sender under sending
	sending sync.RWMutex  // keeps the descriptor from being closed, and its number from becoming another file's
	errors  sync.Mutex    // held for one call that sends, and while the queue of errors is read
	users   int           // tunnels; guarded by Gateway.mu
	noGSO   atomic.Bool   // the device cannot send UDP_SEGMENT
	stop    wakeup        // ends the reader, and a wait of the sender
	done    chan struct{} // closed when the reader has ended
}

// openOuter opens a socket in the namespace of the calling thread.
func openOuter(e endpoint) (_ *outer, err error) {
	family := unix.AF_INET
	options := [][3]int{
		// The outer packet is never fragmented, by anybody.
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1},
	}
	if e.local.Is6() {
		family = unix.AF_INET6
		options = [][3]int{
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
			{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
		}
	}
	kind, proto, local := unix.SOCK_DGRAM, unix.IPPROTO_UDP, ipsec.UDPPort
	if e.encapsulation == ipsec.ESP {
		kind, proto, local = unix.SOCK_RAW, unix.IPPROTO_ESP, 0
	} else {
		options = append(options, [3]int{unix.SOL_UDP, unix.UDP_GRO, 1})
		if e.local.Is6() {
			options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
		}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("outer socket %v: %w", e, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil && o[0] != unix.SOL_UDP {
			return nil, fmt.Errorf("outer socket %v: option %d of level %d: %w", e, o[1], o[0], err)
		}
	}
	port.SetBuffers(fd)
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: local, Addr: e.local.As16()}
	if e.local.Is4() {
		sa = &unix.SockaddrInet4{Port: local, Addr: e.local.As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, fmt.Errorf("outer socket %v: %w", e, os.NewSyscallError("bind", err))
	}
	stop, err := newWakeup()
	if err != nil {
		return nil, err
	}
	return &outer{endpoint: e, fd: fd, stop: stop, done: make(chan struct{})}, nil
}

// String names the socket in errors.
func (e endpoint) String() string {
	if e.encapsulation == ipsec.ESP {
		return fmt.Sprintf("%v, IP protocol 50", e.local)
	}
	return netip.AddrPortFrom(e.local, ipsec.UDPPort).String()
}

// close ends the reader and frees the socket.
func (o *outer) close() error {
	o.stop.wake()
	<-o.done
	o.sending.Lock()
	defer o.sending.Unlock()
	err := errors.Join(unix.Close(o.fd), o.stop.close())
	o.fd, o.stop.fd = -1, -1
	return err
}

// send sends from the first message on and returns how many it sent. Meanwhile nobody reads the queue of errors: with each
// that is read the kernel reports the next one again, in place of sending.
func (o *outer) send(messages []mmsghdr) (int, error) {
	o.errors.Lock()
	defer o.errors.Unlock()
	return sendmmsg(o.fd, messages)
}

// peerAddress is where to send ESP packets for dst.
func peerAddress(dst netip.Addr, e ipsec.Encapsulation) (a address) {
	var port [2]byte
	if e == ipsec.UDP {
		binary.BigEndian.PutUint16(port[:], ipsec.UDPPort)
	}
	if dst.Is4() {
		a.v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.As4(), Port: binary.NativeEndian.Uint16(port[:])}
	} else {
		a.v6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: dst.As16(), Port: binary.NativeEndian.Uint16(port[:])}
	}
	return a
}

// setName makes a message go to a.
func (a *address) setName(h *unix.Msghdr) {
	if a.v4.Family != 0 {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&a.v4)), unix.SizeofSockaddrInet4
	} else {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&a.v6)), unix.SizeofSockaddrInet6
	}
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	n uint32 // bytes received or sent
}

// sendmmsg sends from the first message on and returns how many it sent.
func sendmmsg(fd int, messages []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func recvmmsg(fd int, messages []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// putControl appends one control message of n bytes at most 4 to b, which has room, and returns the new length.
func putControl(b []byte, at int, level, kind int32, value []byte) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(value)))
	copy(b[at+unix.CmsgLen(0):], value)
	return at + unix.CmsgSpace(len(value))
}

// control holds what the kernel says beside a packet.
type control struct {
	tos     uint8
	segment int // bytes of each of the packets that were joined; 0: there is one
}

func parseControl(b []byte) (c control) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(1) || n > len(b) {
			return c
		}
		value := b[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS:
			c.tos = value[0]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(value) >= 4:
			c.tos = uint8(binary.NativeEndian.Uint32(value))
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(value) >= 4:
			c.segment = int(binary.NativeEndian.Uint32(value))
		}
		next := unix.CmsgSpace(n - unix.CmsgLen(0))
		if next > len(b) {
			return c
		}
		b = b[next:]
	}
	return c
}
