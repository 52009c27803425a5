package gateway

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// errorQueue reads what the kernel knows of errors that sent packets met (IP_RECVERR in ip(7)).
type errorQueue struct {
	name    unix.RawSockaddrInet6 // large enough for both families
	control [512]byte
	data    [64]byte
}

// drain empties the queue and learns path MTUs from it.
func (q *errorQueue) drain(g *Gateway, o *outer) {
	o.errors.Lock()
	defer o.errors.Unlock()
	for {
		iov := unix.Iovec{Base: &q.data[0]}
		iov.SetLen(len(q.data))
		m := unix.Msghdr{
			Name: (*byte)(unsafe.Pointer(&q.name)), Namelen: unix.SizeofSockaddrInet6,
			Iov: &iov, Control: &q.control[0],
		}
		m.SetIovlen(1)
		m.SetControllen(len(q.control))
		_, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(o.fd), uintptr(unsafe.Pointer(&m)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return
		}
		if mtu, ok := tooBigError(q.control[:m.Controllen]); ok {
			dst := netip.AddrFrom16(q.name.Addr)
			if o.local.Is4() {
				dst = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&q.name)).Addr)
			}
			g.background.Go(func() { g.learnPath(endpoint{o.local, o.encapsulation}, dst, mtu) })
		}
	}
}

// tooBigError finds the path MTU in an error's control data (struct sock_extended_err).
func tooBigError(b []byte) (mtu int, ok bool) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return 0, false
		}
		value := b[unix.CmsgLen(0):n]
		if (h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR) &&
			len(value) >= 16 && unix.Errno(binary.NativeEndian.Uint32(value)) == unix.EMSGSIZE {
			return int(binary.NativeEndian.Uint32(value[8:])), true
		}
		next := unix.CmsgSpace(n - unix.CmsgLen(0))
		if next > len(b) {
			return 0, false
		}
		b = b[next:]
	}
	return 0, false
}

// learnPath lowers the path MTU of the tunnels whose ESP packets go from e to dst. It never raises one, and never goes
// below what IP guarantees: whoever can forge ICMP gets no further than that (RFC 4301 section 8.2).
func (g *Gateway) learnPath(e endpoint, dst netip.Addr, mtu int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	changed := false
	for _, t := range g.tunnels {
		if t.socket.endpoint == e && t.policy.Dst == dst {
			if path := max(mtu, leastPath(&t.policy)); int64(path) < t.path.Load() {
				t.path.Store(int64(path))
				changed = true
			}
		}
	}
	if changed {
		// The gateway answers what is too big for the path itself, so a route that keeps the old MTU does no harm.
		_ = g.routes.Sync(g.steered(g.tunnels))
	}
}

// leastPath is the smallest path MTU that is believed.
func leastPath(p *ipsec.Policy) int {
	least := 576 // RFC 791; every IPv4 path of today carries it
	if p.Dst.Is6() {
		least = 1280
	}
	for _, l := range p.Local {
		if l.Addr().Is6() {
			for p.InnerMTU(least) < 1280 {
				least++
			}
		}
	}
	return min(least, p.PathMTU)
}
