package port

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bufferLen is what the sockets of a port may hold, where the kernel lets us choose.
const bufferLen = 8 << 20

// openPacket makes a veth pair. The near end sends without asking for neighbours, to its own address, so that the far
// end's stack sees packets for another host and leaves them alone, while AF_PACKET gets them.
func openPacket(name string, h *netlink.Handle) (*Port, error) {
	far := name + "-far"
	if len(far) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("interface %q: name is longer than %d bytes", name, unix.IFNAMSIZ-len("-far")-1)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerMTU: 65535}); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("%w: interface %s: kernel has no veth (CONFIG_VETH)", ErrUnavailable, name)
		}
		return nil, fmt.Errorf("interface %s: veth: %w", name, err)
	}
	p, err := attachPacket(name, far, h)
	if err != nil {
		if link, e := h.LinkByName(name); e == nil {
			err = errors.Join(err, h.LinkDel(link))
		}
		return nil, err
	}
	return p, nil
}

func attachPacket(name, farName string, h *netlink.Handle) (_ *Port, err error) {
	near, err := prepare(h, name)
	if err != nil {
		return nil, err
	}
	far, err := prepare(h, farName)
	if err != nil {
		return nil, err
	}
	for _, link := range []netlink.Link{near, far} {
		if err := h.LinkSetARPOff(link); err != nil {
			return nil, fmt.Errorf("interface %s: arp off: %w", link.Attrs().Name, err)
		}
	}
	if err := h.LinkSetUp(far); err != nil {
		return nil, fmt.Errorf("interface %s: up: %w", farName, err)
	}
	// No protocol until it is bound: it must not see other interfaces' packets.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, socketError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, option := range []struct {
		name  string
		value int
	}{
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING},
		// The far end was up before the near one, so the kernel gives it a queue when it finds the time, and drops until then.
		{"PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option.value, 1); err != nil {
			return nil, optionError(option.name, err)
		}
	}
	if err := disable(fd, name, unspeakable); err != nil {
		return nil, err
	}
	SetBuffers(fd)
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: far.Attrs().Index}); err != nil {
		return nil, fmt.Errorf("AF_PACKET: bind to %s: %w", farName, err)
	}
	p := &Port{
		kind: Packet, name: name, near: near, fd: fd, link: ethernetLen,
		remove: func() error { return errors.Join(unix.Close(fd), h.LinkDel(near)) },
	}
	copy(p.ethernet[:6], near.Attrs().HardwareAddr)
	copy(p.ethernet[6:], far.Attrs().HardwareAddr)
	return p, nil
}

// socketError says why there is no packet socket: ErrUnavailable where the kernel has none, or none for us.
func socketError(err error) error {
	switch err {
	case unix.EAFNOSUPPORT, unix.EPERM, unix.EACCES:
		return fmt.Errorf("%w: AF_PACKET socket (CONFIG_PACKET, CAP_NET_RAW): %w", ErrUnavailable, err)
	}
	return fmt.Errorf("AF_PACKET socket: %w", err)
}

// optionError says why an option of a packet socket could not be set: ErrUnavailable where the kernel does not know it.
func optionError(name string, err error) error {
	if err == unix.ENOPROTOOPT {
		return fmt.Errorf("%w: AF_PACKET: kernel has no %s: %w", ErrUnavailable, name, err)
	}
	return fmt.Errorf("AF_PACKET: %s: %w", name, err)
}

// SetBuffers makes a socket's buffers hold bursts: as large as pqlab likes where it may, else as large as the
// administrator lets it (net.core.rmem_max, wmem_max).
func SetBuffers(fd int) {
	for _, option := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], bufferLen) != nil {
			// The kernel caps the value instead of refusing it.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], bufferLen)
		}
	}
}
