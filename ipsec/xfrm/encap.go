package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// encap is through what the kernel receives ESP in UDP at one address. What is not ESP stays in its sockets, and is dropped
// when their small buffers are full. Nobody else can bind the port.
type encap struct {
	local netip.Addr
	fd    int // of a socket that receives from everyone
	users int // tunnels

	// One of the peers has a socket that is connected to it. For such a socket the kernel remembers the way of received
	// packets, which is two lookups of routes and rules for each packet otherwise. It does so for the socket of the address
	// that was bound last (udp_v4_early_demux), so a second one would only be in the way of the first.
	peer   netip.Addr
	near   int // its descriptor
	ofPeer int // tunnels with that peer; 0: no such socket
}

// openEncap opens the socket of an address of the calling thread's namespace.
func openEncap(local netip.Addr) (*encap, error) {
	fd, err := encapSocket(local, netip.Addr{})
	return &encap{local: local, fd: fd}, err
}

// encapSocket opens one that receives from everyone, or from a peer beside one that does.
func encapSocket(local, peer netip.Addr) (int, error) {
	fam := unix.AF_INET
	if !local.Is4() {
		fam = unix.AF_INET6
	}
	name := netip.AddrPortFrom(local, ipsec.UDPPort)
	fd, err := unix.Socket(fam, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("outer socket %v: %w", name, os.NewSyscallError("socket", err))
	}
	if !local.Is4() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if peer.IsValid() {
		err = errors.Join(err, share(fd, 1))
	}
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		os.NewSyscallError("bind", unix.Bind(fd, sockaddr(local))),
		// Last: from here on the kernel takes ESP out of it.
		os.NewSyscallError("UDP_ENCAP", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP)),
	)
	if err == nil && peer.IsValid() {
		err = errors.Join(os.NewSyscallError("connect", unix.Connect(fd, sockaddr(peer))), share(fd, 0))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("outer socket %v: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

// share says whether others may bind what a socket has bound, where they say so too.
func share(fd, on int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on) }

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: ipsec.UDPPort, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: ipsec.UDPPort, Addr: a.As16()}
}

// add makes it receive for one more tunnel. It must be called in the namespace.
func (e *encap) add(peer netip.Addr) {
	e.users++
	if e.ofPeer > 0 {
		if peer == e.peer {
			e.ofPeer++
		}
		return
	}
	if share(e.fd, 1) != nil {
		return
	}
	// There may be no way to the peer yet, and what it sends is received all the same.
	if fd, err := encapSocket(e.local, peer); err == nil {
		e.peer, e.near, e.ofPeer = peer, fd, 1
	}
	_ = share(e.fd, 0)
}

// remove undoes add. After the last one the caller closes it.
func (e *encap) remove(peer netip.Addr) error {
	e.users--
	if e.ofPeer == 0 || peer != e.peer {
		return nil
	}
	if e.ofPeer--; e.ofPeer > 0 {
		return nil
	}
	return unix.Close(e.near)
}

func (e *encap) close() error {
	err := unix.Close(e.fd)
	if e.ofPeer > 0 {
		err = errors.Join(err, unix.Close(e.near))
	}
	return err
}
