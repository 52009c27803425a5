// Package plaintext refuses, by nftables, what a policy says must only travel inside of a tunnel.
package plaintext

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// ErrUnavailable: the kernel has no nftables, so plaintext could not be refused.
var ErrUnavailable = fmt.Errorf("no packet filter: %w", errors.ErrUnsupported)

// Filter refuses plaintext between the subnets of policies, in an nftables table of its own: what arrives and leaves and
// is not exempt. Its methods are not safe for concurrent use.
//
// Each tunnel has a counter and a rule for each pair of its subnets. Before these rules each chain lets pass what is for
// none of the subnets at all, by one lookup, so that the number of tunnels costs other traffic nothing.
type Filter struct {
	conn     *nftables.Conn
	table    *nftables.Table
	sides    [2]*side // what arrives, what leaves
	next     int      // number of the next tunnel
	ids      map[string]string
	policies map[string]ipsec.Policy
}

type side struct {
	chain *nftables.Chain
	sets  map[int]*nftables.Set // destinations that the rules are about, by family
}

// Exempt tells packets that came out of a tunnel, or are on their way into one, from plaintext.
type Exempt struct{ arriving, leaving []expr.Any }

// Through exempts what arrives or leaves by one interface, which leads into the tunnels.
func Through(link int) Exempt {
	index := binary.NativeEndian.AppendUint32(nil, uint32(link))
	by := func(key expr.MetaKey) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index}}
	}
	return Exempt{by(expr.MetaKeyIIF), by(expr.MetaKeyOIF)}
}

// What nftables has and the library and x/sys have no name for (linux/netfilter/nf_tables.h).
const (
	metaSecpath = 25 // NFT_META_SECPATH: the kernel's IPsec has decrypted it
	routeXFRM   = 4  // NFT_RT_XFRM: the kernel's IPsec will encrypt it
)

// Kernel exempts what the kernel's IPsec has decrypted or will encrypt.
func Kernel() Exempt {
	yes := &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}
	return Exempt{
		[]expr.Any{&expr.Meta{Key: metaSecpath, Register: 1}, yes},
		[]expr.Any{&expr.Rt{Key: routeXFRM, Register: 1}, yes},
	}
}

// New makes the table, in the namespace of the calling thread. What one of the exemptions is for passes.
func New(table string, exempt ...Exempt) (*Filter, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, NoFilter(err)
	}
	f := &Filter{conn: conn, ids: map[string]string{}, policies: map[string]ipsec.Policy{}}
	f.table = conn.AddTable(&nftables.Table{Name: table, Family: nftables.TableFamilyINet})
	for i, s := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		exempt   func(Exempt) []expr.Any
	}{
		// Before any address translation on the way in, after it on the way out: what is really on the wire.
		{"arriving", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, func(e Exempt) []expr.Any { return e.arriving }},
		{"leaving", nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource + 100, func(e Exempt) []expr.Any { return e.leaving }},
	} {
		chain := conn.AddChain(&nftables.Chain{
			Name: s.name, Table: f.table, Type: nftables.ChainTypeFilter, Hooknum: s.hook, Priority: &s.priority,
		})
		for _, e := range exempt {
			conn.AddRule(&nftables.Rule{
				Table: f.table, Chain: chain, Exprs: append(slices.Clone(s.exempt(e)), &expr.Verdict{Kind: expr.VerdictAccept}),
			})
		}
		f.sides[i] = &side{chain: chain, sets: map[int]*nftables.Set{}}
		for j, v := range versions {
			set := &nftables.Set{
				Table: f.table, Name: s.name + v.suffix, KeyType: v.key, Interval: true,
				ID: uint32(len(versions)*i + j + 1), // left to the library it would come from a variable that all goroutines share
			}
			if err := conn.AddSet(set, nil); err != nil {
				return nil, errors.Join(NoFilter(err), conn.CloseLasting())
			}
			conn.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: append(v.is(),
				v.load(v.dst),
				&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true},
				&expr.Verdict{Kind: expr.VerdictAccept},
			)})
			f.sides[i].sets[v.family] = set
		}
	}
	if err := conn.Flush(); err != nil {
		return nil, errors.Join(NoFilter(err), conn.CloseLasting())
	}
	return f, nil
}

// NoFilter makes of what the kernel says to a wish for nftables an ErrUnavailable, where it has none, or none for us. All else,
// as too many open files, says nothing about this machine.
func NoFilter(err error) error {
	for _, lacks := range []unix.Errno{
		unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, // no netlink of it, no family inet, no tables
		unix.ENOENT, unix.EINVAL, // no such chain, expression, or key of one
		unix.EPERM, unix.EACCES,
	} {
		if errors.Is(err, lacks) {
			return fmt.Errorf("%w: nftables (CONFIG_NF_TABLES_INET; modprobe nf_tables): %w", ErrUnavailable, err)
		}
	}
	return fmt.Errorf("packet filter: nftables: %w", err)
}

// Add refuses plaintext of a tunnel from its return on.
func (f *Filter) Add(p ipsec.Policy) error {
	f.next++
	id := fmt.Sprintf("t%d", f.next)
	f.conn.AddObj(&nftables.CounterObj{Table: f.table, Name: id})
	for i, s := range f.sides {
		src, dst := p.Remote, p.Local
		if i == 1 {
			src, dst = dst, src
		}
		for _, a := range src {
			for _, b := range dst {
				if a.Addr().Is4() == b.Addr().Is4() {
					f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: s.chain, UserData: []byte(id), Exprs: append(match(a, b),
						&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: id},
						&expr.Verdict{Kind: expr.VerdictDrop},
					)})
				}
			}
		}
	}
	all := maps.Clone(f.policies)
	all[p.Tunnel] = p
	f.fillSets(all)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("tunnel %s: packet filter: %w", p.Tunnel, err)
	}
	f.ids[p.Tunnel], f.policies = id, all
	return nil
}

// Remove undoes Add.
func (f *Filter) Remove(tunnel string) error {
	id := f.ids[tunnel]
	for _, s := range f.sides {
		rules, err := f.conn.GetRules(f.table, s.chain)
		if err != nil {
			return fmt.Errorf("tunnel %s: packet filter: %w", tunnel, err)
		}
		for _, r := range rules {
			if string(r.UserData) == id {
				if err := f.conn.DelRule(r); err != nil {
					return fmt.Errorf("tunnel %s: packet filter: %w", tunnel, err)
				}
			}
		}
	}
	f.conn.DeleteObject(&nftables.CounterObj{Table: f.table, Name: id})
	rest := maps.Clone(f.policies)
	delete(rest, tunnel)
	f.fillSets(rest)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("tunnel %s: packet filter: %w", tunnel, err)
	}
	delete(f.ids, tunnel)
	f.policies = rest
	return nil
}

// Refused is how many packets of a tunnel were refused.
func (f *Filter) Refused(tunnel string) (uint64, error) {
	o, err := f.conn.GetObject(&nftables.CounterObj{Table: f.table, Name: f.ids[tunnel]})
	if err != nil {
		return 0, fmt.Errorf("tunnel %s: plaintext counter: %w", tunnel, err)
	}
	c, ok := o.(*nftables.CounterObj)
	if !ok {
		return 0, fmt.Errorf("tunnel %s: plaintext counter: is a %T", tunnel, o)
	}
	return c.Packets, nil
}

// Close removes the table.
func (f *Filter) Close() error {
	f.conn.DelTable(f.table)
	return errors.Join(f.conn.Flush(), f.conn.CloseLasting())
}

// fillSets puts the tunnels' subnets into the sets.
func (f *Filter) fillSets(all map[string]ipsec.Policy) {
	for i, s := range f.sides {
		prefixes := map[int][]netip.Prefix{}
		for _, p := range all {
			dst := p.Local
			if i == 1 {
				dst = p.Remote
			}
			for _, d := range dst {
				prefixes[family(d.Addr())] = append(prefixes[family(d.Addr())], d)
			}
		}
		for fam, set := range s.sets {
			f.conn.FlushSet(set)
			if e := elements(prefixes[fam]); len(e) > 0 {
				// It fails for sets that are constant or anonymous only.
				_ = f.conn.SetAddElements(set, e)
			}
		}
	}
}

// elements are the intervals that prefixes cover; overlapping prefixes, which a set refuses, are one inside the other.
func elements(prefixes []netip.Prefix) (e []nftables.SetElement) {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var last netip.Prefix
	for _, p := range prefixes {
		if last.IsValid() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		first := p.Addr().AsSlice()
		// One interval's end may be the next one's start: the kernel takes both.
		e = append(e, nftables.SetElement{Key: first})
		if end, ok := after(p); ok {
			e = append(e, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	return e
}

// after is the first address after a prefix; there is none after the last.
func after(p netip.Prefix) ([]byte, bool) {
	b := p.Addr().AsSlice()
	for i := range b {
		switch bits := p.Bits() - 8*i; {
		case bits <= 0:
			b[i] = 0xff
		case bits < 8:
			b[i] |= 0xff >> bits
		}
	}
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return b, true
		}
	}
	return nil, false
}

// version is where an IP version keeps its addresses.
type version struct {
	family   int
	suffix   string
	proto    byte
	src, dst uint32 // offsets
	len      uint32
	key      nftables.SetDatatype
}

var versions = [...]version{
	{unix.AF_INET, "4", unix.NFPROTO_IPV4, 12, 16, 4, nftables.TypeIPAddr},
	{unix.AF_INET6, "6", unix.NFPROTO_IPV6, 8, 24, 16, nftables.TypeIP6Addr},
}

func (v *version) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{v.proto}},
	}
}

func (v *version) load(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: v.len}
}

// match compares the addresses of a packet with two prefixes.
func match(src, dst netip.Prefix) []expr.Any {
	v := &versions[0]
	if src.Addr().Is6() {
		v = &versions[1]
	}
	e := v.is()
	for _, m := range []struct {
		prefix netip.Prefix
		offset uint32
	}{{src, v.src}, {dst, v.dst}} {
		if m.prefix.Bits() == 0 {
			continue
		}
		e = append(e, v.load(m.offset),
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: v.len, Mask: net.CIDRMask(m.prefix.Bits(), m.prefix.Addr().BitLen()), Xor: make([]byte, v.len)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: m.prefix.Addr().AsSlice()})
	}
	return e
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Has says whether a tunnel was added.
func (f *Filter) Has(tunnel string) bool { return f.ids[tunnel] != "" }
