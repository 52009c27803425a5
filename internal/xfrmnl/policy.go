package xfrmnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Hook is where a policy applies.
type Hook uint8

const (
	Incoming   Hook = iota // to the node itself
	Outgoing               // from it and through it
	Forwarding             // through it, as it arrives
)

// Policy says that packets between two prefixes have to be in a tunnel, or may not pass.
type Policy struct {
	Src, Dst netip.Prefix
	Hook     Hook
	Priority uint32     // the lowest goes first
	OuterSrc netip.Addr // of the tunnel
	OuterDst netip.Addr
	ReqID    uint32 // of its SAs
	SPI      uint32 // of the only SA that will do; 0 is any. Outgoing
	IfID     uint32
	Block    bool // the packets may not pass at all; the tunnel's fields mean nothing
}

// AddPolicy installs a policy; EEXIST where there is one for the same packets.
func (c *Conn) AddPolicy(p *Policy) error {
	return c.do(msgNewPolicy, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.encode(), nil)
}

// SetPolicy puts a policy in the place of that for the same packets, in one step.
func (c *Conn) SetPolicy(p *Policy) error {
	return c.do(msgUpdPolicy, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p.encode(), nil)
}

// DeletePolicy removes the policy for the packets that p is for; ENOENT where there is none.
func (c *Conn) DeletePolicy(p *Policy) error {
	b := p.appendSelector(make([]byte, 0, 96))
	b = append(b, 0, 0, 0, 0, byte(p.Hook), 0, 0, 0) // index, direction
	return c.do(msgDelPolicy, 0, p.appendIfID(b), nil)
}

const (
	sizePolicy   = 168
	sizeTemplate = 64
)

func (p *Policy) encode() []byte {
	b := p.appendSelector(make([]byte, 0, 256))
	b = appendLimits(b, NoLimits, NoLimits)
	b = append(b, make([]byte, 32)...) // counters
	b = native.AppendUint32(b, p.Priority)
	action := byte(0)
	if p.Block {
		action = 1
	}
	b = append(b, 0, 0, 0, 0, byte(p.Hook), action, 0, 0) // index; direction, action, no flags, not shared
	b = append(b, make([]byte, sizePolicy-len(b))...)
	if p.Block {
		return p.appendIfID(b)
	}

	t := make([]byte, 0, sizeTemplate)
	t = appendAddr(t, p.OuterDst)
	t = binary.BigEndian.AppendUint32(t, p.SPI)
	t = append(t, unix.IPPROTO_ESP, 0, 0, 0)
	t = native.AppendUint16(t, family(p.OuterDst))
	t = append(t, 0, 0)
	t = appendAddr(t, p.OuterSrc)
	t = native.AppendUint32(t, p.ReqID)
	t = append(t, modeTunnel, 0, 0, 0) // required
	for range 3 {
		t = native.AppendUint32(t, 1<<32-1) // any algorithm
	}
	return p.appendIfID(attribute(b, attrTmpl, t))
}

func (p *Policy) appendIfID(b []byte) []byte {
	if p.IfID != 0 {
		b = attribute(b, attrIfID, native.AppendUint32(nil, p.IfID))
	}
	return b
}

// appendSelector appends a struct xfrm_selector.
func (p *Policy) appendSelector(b []byte) []byte {
	b = appendAddr(b, p.Dst.Addr())
	b = appendAddr(b, p.Src.Addr())
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // any ports
	b = native.AppendUint16(b, family(p.Dst.Addr()))
	b = append(b, byte(p.Dst.Bits()), byte(p.Src.Bits()), 0)
	return append(b, make([]byte, 3+4+4)...) // any protocol, interface, user
}
