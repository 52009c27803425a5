package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const filterTable = "pqlab_gateway"

// filter refuses plaintext between the subnets of policies, in an nftables table of its own: what arrives anywhere but
// at the port, and what leaves anywhere but there. Its methods are called under Gateway.mu.
//
// Each tunnel has a counter and a rule for each pair of its subnets. Before these rules each chain lets pass what is for
// none of the subnets at all, by one lookup, so that the number of tunnels costs other traffic nothing.
type filter struct {
	conn  *nftables.Conn
	table *nftables.Table
	sides [2]*side // what arrives, what leaves
	next  int      // number of the next tunnel
	ids   map[string]string
}

type side struct {
	chain *nftables.Chain
	sets  map[int]*nftables.Set // destinations that the rules are about, by family
}

// newFilter makes the table, in the namespace of the calling thread. link is the index of the port's interface.
func newFilter(link int) (*filter, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, noFilter(err)
	}
	f := &filter{conn: conn, ids: map[string]string{}}
	f.table = conn.AddTable(&nftables.Table{Name: filterTable, Family: nftables.TableFamilyINet})
	for i, s := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		key      expr.MetaKey
	}{
		// Before any address translation on the way in, after it on the way out: what is really on the wire.
		{"arriving", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, expr.MetaKeyIIF},
		{"leaving", nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource + 100, expr.MetaKeyOIF},
	} {
		chain := conn.AddChain(&nftables.Chain{
			Name: s.name, Table: f.table, Type: nftables.ChainTypeFilter, Hooknum: s.hook, Priority: &s.priority,
		})
		index := binary.NativeEndian.AppendUint32(nil, uint32(link))
		conn.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: s.key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
		f.sides[i] = &side{chain: chain, sets: map[int]*nftables.Set{}}
		for j, v := range versions {
			set := &nftables.Set{
				Table: f.table, Name: s.name + v.suffix, KeyType: v.key, Interval: true,
				ID: uint32(len(versions)*i + j + 1), // left to the library it would come from a variable that all goroutines share
			}
			if err := conn.AddSet(set, nil); err != nil {
				return nil, errors.Join(noFilter(err), conn.CloseLasting())
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
		return nil, errors.Join(noFilter(err), conn.CloseLasting())
	}
	return f, nil
}

func noFilter(err error) error {
	return fmt.Errorf("%w: nftables (CONFIG_NF_TABLES_INET; modprobe nf_tables): %w", ErrNoFilter, err)
}

// add refuses plaintext of a tunnel from its return on. all are the tunnels that there will be.
func (f *filter) add(t *tunnel, all map[string]*tunnel) error {
	f.next++
	id := fmt.Sprintf("t%d", f.next)
	f.conn.AddObj(&nftables.CounterObj{Table: f.table, Name: id})
	for i, s := range f.sides {
		src, dst := t.policy.Remote, t.policy.Local
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
	f.fillSets(all)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("tunnel %s: packet filter: %w", t.policy.Tunnel, err)
	}
	f.ids[t.policy.Tunnel] = id
	return nil
}

// remove undoes add. rest are the tunnels that remain.
func (f *filter) remove(t *tunnel, rest map[string]*tunnel) error {
	id := f.ids[t.policy.Tunnel]
	for _, s := range f.sides {
		rules, err := f.conn.GetRules(f.table, s.chain)
		if err != nil {
			return fmt.Errorf("tunnel %s: packet filter: %w", t.policy.Tunnel, err)
		}
		for _, r := range rules {
			if string(r.UserData) == id {
				if err := f.conn.DelRule(r); err != nil {
					return fmt.Errorf("tunnel %s: packet filter: %w", t.policy.Tunnel, err)
				}
			}
		}
	}
	f.conn.DeleteObject(&nftables.CounterObj{Table: f.table, Name: id})
	f.fillSets(rest)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("tunnel %s: packet filter: %w", t.policy.Tunnel, err)
	}
	delete(f.ids, t.policy.Tunnel)
	return nil
}

// plaintext is how many packets of a tunnel were refused.
func (f *filter) plaintext(tunnel string) (uint64, error) {
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

// close removes the table.
func (f *filter) close() error {
	f.conn.DelTable(f.table)
	return errors.Join(f.conn.Flush(), f.conn.CloseLasting())
}

// fillSets puts the tunnels' subnets into the sets.
func (f *filter) fillSets(all map[string]*tunnel) {
	for i, s := range f.sides {
		prefixes := map[int][]netip.Prefix{}
		for _, t := range all {
			dst := t.policy.Local
			if i == 1 {
				dst = t.policy.Remote
			}
			for _, p := range dst {
				prefixes[family(p.Addr())] = append(prefixes[family(p.Addr())], p)
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
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: v.len, Mask: ipNet(m.prefix).Mask, Xor: make([]byte, v.len)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: m.prefix.Addr().AsSlice()})
	}
	return e
}
