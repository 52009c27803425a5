package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
)

// tunnel is an installed policy with its SAs.
type tunnel struct {
	policy ipsec.Policy
	socket *outer
	peer   address            // of the ESP packets
	source map[int]netip.Addr // the node's own address in policy.Local, by family
	drops  drops
	out    atomic.Pointer[outboundSA] // protects what leaves; nil when there is none
	path   atomic.Int64               // bytes of outer packet that the way to the peer carries now

	// Guarded by Gateway.mu.
	inbound  map[uint32]*inboundSA
	outbound map[uint32]*outboundSA
}

// overhead is what the outer headers before the ESP header take, in bytes.
func overhead(p *ipsec.Policy) int {
	n := 20
	if p.Dst.Is6() {
		n = 40
	}
	if p.Encapsulation == ipsec.UDP {
		n += 8
	}
	return n
}

// innerMTU is the largest inner packet for outer packets of path bytes.
func innerMTU(p *ipsec.Policy, path int) int { return esp.Room(path - overhead(p)) }

// mtu is the largest inner packet that the tunnel carries now.
func (t *tunnel) mtu() int { return innerMTU(&t.policy, int(t.path.Load())) }

// protects says whether the policy is for packets from src to dst, which leave.
func (t *tunnel) protects(src, dst netip.Addr) bool {
	return contains(t.policy.Local, src) && contains(t.policy.Remote, dst)
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func hasPrefix(prefixes []netip.Prefix, p netip.Prefix) bool { return slices.Contains(prefixes, p) }

// table finds the policy of an outbound packet: the longest remote prefix that matches, and in it the longest local one.
// It does not change once it is made.
type table struct {
	lengths []length // longest first
}

type length struct {
	v6   bool
	bits int
	to   map[netip.Prefix][]choice // by remote prefix; longest local prefix first
}

type choice struct {
	local  netip.Prefix
	tunnel *tunnel
}

func newTable(tunnels map[string]*tunnel) *table {
	var tb table
	for _, t := range tunnels {
		for _, remote := range t.policy.Remote {
			l := tb.length(!remote.Addr().Is4(), remote.Bits())
			for _, local := range t.policy.Local {
				if local.Addr().Is4() == remote.Addr().Is4() {
					l.to[remote] = append(l.to[remote], choice{local, t})
				}
			}
		}
	}
	slices.SortFunc(tb.lengths, func(a, b length) int { return b.bits - a.bits })
	for _, l := range tb.lengths {
		for _, choices := range l.to {
			slices.SortFunc(choices, func(a, b choice) int { return b.local.Bits() - a.local.Bits() })
		}
	}
	return &tb
}

func (tb *table) length(v6 bool, bits int) *length {
	i := slices.IndexFunc(tb.lengths, func(l length) bool { return l.v6 == v6 && l.bits == bits })
	if i < 0 {
		i = len(tb.lengths)
		tb.lengths = append(tb.lengths, length{v6: v6, bits: bits, to: map[netip.Prefix][]choice{}})
	}
	return &tb.lengths[i]
}

func (tb *table) lookup(src, dst netip.Addr) *tunnel {
	for i := range tb.lengths {
		l := &tb.lengths[i]
		if l.v6 == dst.Is4() {
			continue
		}
		p, err := dst.Prefix(l.bits)
		if err != nil {
			continue
		}
		for _, c := range l.to[p] {
			if c.local.Contains(src) {
				return c.tunnel
			}
		}
	}
	return nil
}

// check refuses a policy that could not work, and puts its prefixes into canonical form.
func check(p ipsec.Policy) (ipsec.Policy, error) {
	bad := func(format string, args ...any) (ipsec.Policy, error) {
		return p, fmt.Errorf("tunnel %s: %w: %s", p.Tunnel, ErrPolicy, fmt.Sprintf(format, args...))
	}
	if p.Tunnel == "" {
		return bad("it has no name")
	}
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() || p.Src.Is4In6() || p.Dst.Is4In6() ||
		p.Src.Zone() != "" || p.Dst.Zone() != "" {
		return bad("outer addresses %v and %v are not two of one family", p.Src, p.Dst)
	}
	if p.Encapsulation != ipsec.UDP && p.Encapsulation != ipsec.ESP {
		return bad("encapsulation %d is neither UDP nor ESP", p.Encapsulation)
	}
	p.Local, p.Remote = slices.Clone(p.Local), slices.Clone(p.Remote)
	var v4, v6 [2]bool
	for side, prefixes := range [...][]netip.Prefix{p.Local, p.Remote} {
		for i, prefix := range prefixes {
			if !prefix.IsValid() || prefix.Addr().Is4In6() {
				return bad("subnet %v", prefix)
			}
			prefixes[i] = prefix.Masked()
			if prefix.Addr().Is4() {
				v4[side] = true
			} else {
				v6[side] = true
			}
		}
	}
	if v4[0] != v4[1] || v6[0] != v6[1] || !v4[0] && !v6[0] {
		return bad("subnets %v and %v have no counterparts of their family", p.Local, p.Remote)
	}
	if contains(p.Local, p.Src) && contains(p.Remote, p.Dst) {
		return bad("it would protect its own ESP packets from %v to %v", p.Src, p.Dst)
	}
	least, what := 68, "IPv4 (RFC 791)"
	if v6[0] {
		least, what = 1280, "IPv6 (RFC 8200 section 5)"
	}
	if p.PathMTU > 65535 || innerMTU(&p, p.PathMTU) < least {
		return bad("path MTU %d leaves %d bytes for an inner packet; %s needs %d", p.PathMTU, innerMTU(&p, p.PathMTU), what, least)
	}
	p.PathMTU = min(p.PathMTU, maxPath)
	return p, nil
}

// maxPath is the most of a path's MTU that is used, so that every ESP packet fits a batch whatever its outer headers.
const maxPath = maxBatch

// address is a socket address as the kernel reads it.
type address struct {
	v4 unix.RawSockaddrInet4
	v6 unix.RawSockaddrInet6
}

// drops counts by reason; see ipsec.Drops. Plaintext is counted by the kernel.
type drops struct {
	noSA, unknownSPI, replay, integrity, malformed, policy, expired, tooBig, send atomic.Uint64
}

func (d *drops) load() ipsec.Drops {
	return ipsec.Drops{
		NoSA: d.noSA.Load(), UnknownSPI: d.unknownSPI.Load(), Replay: d.replay.Load(), Integrity: d.integrity.Load(),
		Malformed: d.malformed.Load(), Policy: d.policy.Load(), Expired: d.expired.Load(), TooBig: d.tooBig.Load(),
		Send: d.send.Load(),
	}
}
