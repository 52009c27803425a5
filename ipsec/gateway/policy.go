package gateway

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// tunnel is an installed policy with its SAs.
type tunnel struct {
	policy ipsec.Policy
	socket *outer
	peer   address            // of the ESP packets
	source map[int]netip.Addr // the node's own address in policy.Local, by family
	drops  drops
	out    atomic.Pointer[outboundSA] // protects what leaves; nil when there is none
	asked  atomic.Bool                // a packet without an SA was told of, since there was one
	path   atomic.Int64               // bytes of outer packet that the way to the peer carries now

	// Guarded by Gateway.mu.
	inbound  map[uint32]*inboundSA
	outbound map[uint32]*outboundSA
}

// mtu is the largest inner packet that the tunnel carries now.
func (t *tunnel) mtu() int { return t.policy.InnerMTU(int(t.path.Load())) }

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

// check refuses a policy that could not work, and puts it into canonical form.
func check(p ipsec.Policy) (ipsec.Policy, error) {
	p, err := p.Check()
	p.PathMTU = min(p.PathMTU, maxPath)
	return p, err
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
