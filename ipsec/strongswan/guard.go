package strongswan

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/plaintext"
)

// guard lets IKE pass between the ends of tunnels and nowhere else, and counts it, in an nftables table of its own. Its
// methods are not safe for concurrent use.
type guard struct {
	conn  *nftables.Conn
	table *nftables.Table
	sides [2]*nftables.Chain // what arrives, what leaves
	next  int                // number of the next tunnel
	ids   map[string]string
}

// exchanged is what an end sent and received of IKE, in bytes of UDP payload.
type exchanged struct {
	sent, received               uint64
	packetsSent, packetsReceived uint64
}

// ikePort is that of IKE; from the first messages on it shares another one with ESP where that is in UDP (RFC 7296
// section 2.23).
const ikePort = 500

// guardTable is the nftables table.
const guardTable = "pqlab_ike"

// newGuard makes the table, in the namespace of the calling thread.
func newGuard() (*guard, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, plaintext.NoFilter(err)
	}
	g := &guard{conn: conn, ids: map[string]string{}}
	g.table = conn.AddTable(&nftables.Table{Name: guardTable, Family: nftables.TableFamilyINet})
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
		g.sides[i] = conn.AddChain(&nftables.Chain{
			Name: [...]string{"arriving", "leaving"}[i], Table: g.table, Type: nftables.ChainTypeFilter, Hooknum: hook,
			Priority: nftables.ChainPriorityFilter,
		})
		for _, port := range []uint16{ikePort, ipsec.UDPPort} {
			conn.AddRule(&nftables.Rule{Table: g.table, Chain: g.sides[i], Exprs: append(udp(port), &expr.Verdict{Kind: expr.VerdictDrop})})
		}
	}
	if err := conn.Flush(); err != nil {
		return nil, errors.Join(plaintext.NoFilter(err), conn.CloseLasting())
	}
	return g, nil
}

// udp matches packets to a port.
func udp(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

// marker matches what is not ESP in UDP: its first four bytes are zero (RFC 3948 section 2.2).
func marker() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 8, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

// between matches packets from one address to another.
func between(p *ipsec.Policy, leaving bool) []expr.Any {
	src, dst := p.Dst, p.Src
	if leaving {
		src, dst = dst, src
	}
	proto, from, to := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16)
	if src.Is6() {
		proto, from, to = unix.NFPROTO_IPV6, 8, 24
	}
	size := uint32(src.BitLen() / 8)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: from, Len: size},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: src.AsSlice()},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: to, Len: size},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: dst.AsSlice()},
	}
}

// add lets a tunnel's IKE pass, and its ESP in UDP.
func (g *guard) add(p *ipsec.Policy) error {
	g.next++
	id := fmt.Sprintf("t%d", g.next)
	for i, chain := range g.sides {
		leaving := i == 1
		counter := fmt.Sprintf("%s-%s", id, chain.Name)
		g.conn.AddObj(&nftables.CounterObj{Table: g.table, Name: counter})
		counted := []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter}, &expr.Verdict{Kind: expr.VerdictAccept}}
		// They go to the front, the last first.
		for _, rule := range [][]expr.Any{
			join(between(p, leaving), udp(ipsec.UDPPort), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}),
			join(between(p, leaving), udp(ipsec.UDPPort), marker(), counted),
			join(between(p, leaving), udp(ikePort), counted),
		} {
			g.conn.InsertRule(&nftables.Rule{Table: g.table, Chain: chain, UserData: []byte(id), Exprs: rule})
		}
	}
	if err := g.conn.Flush(); err != nil {
		return fmt.Errorf("tunnel %s: packet filter for IKE: %w", p.Tunnel, err)
	}
	g.ids[p.Tunnel] = id
	return nil
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// remove undoes add.
func (g *guard) remove(tunnel string) error {
	id, ok := g.ids[tunnel]
	if !ok {
		return nil
	}
	failed := func(err error) error { return fmt.Errorf("tunnel %s: packet filter for IKE: %w", tunnel, err) }
	for _, chain := range g.sides {
		rules, err := g.conn.GetRules(g.table, chain)
		if err != nil {
			return failed(err)
		}
		for _, r := range rules {
			if string(r.UserData) == id {
				if err := g.conn.DelRule(r); err != nil {
					return failed(err)
				}
			}
		}
	}
	for _, chain := range g.sides {
		g.conn.DeleteObject(&nftables.CounterObj{Table: g.table, Name: fmt.Sprintf("%s-%s", id, chain.Name)})
	}
	if err := g.conn.Flush(); err != nil {
		return failed(err)
	}
	delete(g.ids, tunnel)
	return nil
}

// read is what has passed since add.
func (g *guard) read(p *ipsec.Policy) (e exchanged, err error) {
	headers := uint64(20 + 8)
	if p.Src.Is6() {
		headers = 40 + 8
	}
	for i, chain := range g.sides {
		o, err := g.conn.GetObject(&nftables.CounterObj{Table: g.table, Name: fmt.Sprintf("%s-%s", g.ids[p.Tunnel], chain.Name)})
		if err != nil {
			return e, fmt.Errorf("tunnel %s: counter of IKE: %w", p.Tunnel, err)
		}
		c, ok := o.(*nftables.CounterObj)
		if !ok {
			return e, fmt.Errorf("tunnel %s: counter of IKE: is a %T", p.Tunnel, o)
		}
		bytes := c.Bytes - c.Packets*headers
		if i == 0 {
			e.received, e.packetsReceived = bytes, c.Packets
		} else {
			e.sent, e.packetsSent = bytes, c.Packets
		}
	}
	return e, nil
}

func (e exchanged) since(before exchanged) exchanged {
	return exchanged{
		e.sent - before.sent, e.received - before.received, e.packetsSent - before.packetsSent, e.packetsReceived - before.packetsReceived,
	}
}

func (g *guard) close() error {
	g.conn.DelTable(g.table)
	return errors.Join(g.conn.Flush(), g.conn.CloseLasting())
}
