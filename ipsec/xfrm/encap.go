package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// encap is the socket through which the kernel receives ESP in UDP at one address. What is not ESP stays in it, and is
// dropped when its small buffer is full.
type encap struct {
	fd    int
	users int // tunnels
}

// openEncap opens a socket in the namespace of the calling thread. One with a peer receives what comes from it, before
// one without. To such a socket the kernel remembers the way of received packets, which is two lookups of routes and
// rules for each packet otherwise.
func openEncap(local, peer netip.Addr) (*encap, error) {
	fam := unix.AF_INET
	if !local.Is4() {
		fam = unix.AF_INET6
	}
	name := netip.AddrPortFrom(local, ipsec.UDPPort)
	fd, err := unix.Socket(fam, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("outer socket %v: %w", name, os.NewSyscallError("socket", err))
	}
	if !local.Is4() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		os.NewSyscallError("bind", unix.Bind(fd, sockaddr(local))),
		// Last: from here on the kernel takes ESP out of it.
		os.NewSyscallError("UDP_ENCAP", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP)),
	)
	if err == nil && peer.IsValid() {
		err = os.NewSyscallError("connect", unix.Connect(fd, sockaddr(peer)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("outer socket %v: %w", name, err), unix.Close(fd))
	}
	return &encap{fd: fd}, nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: ipsec.UDPPort, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: ipsec.UDPPort, Addr: a.As16()}
}

func (e *encap) close() error { return unix.Close(e.fd) }
