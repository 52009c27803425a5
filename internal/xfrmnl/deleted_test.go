package xfrmnl

import (
	"net/netip"
	"testing"
)

// deletedMessage is what the kernel sends of an SA that was removed: its name, the SA as an attribute, and the SA's own
// attributes after it (xfrm_notify_sa in net/xfrm/xfrm_user.c).
func deletedMessage(sa *SA, packets uint64) []byte {
	b := sa.encode()
	info := b[:sizeInfo:sizeInfo]
	native.PutUint64(info[168:], packets)
	m := attribute(said(sa.Dst, sa.SPI), attrSA, info)
	return append(m, b[sizeInfo:]...)
}

func TestDeleted(t *testing.T) {
	t.Parallel()
	sa := SA{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0xc0ffee01, ReqID: 7, Key: &[32]byte{1, 2, 3},
		Window: 64, In: 1<<33 + 5, UDP: 4500, IfID: 9, Soft: NoLimits, Hard: NoLimits,
	}
	b := deletedMessage(&sa, 1234)
	told, err := parseTold(header{kind: msgDelSA, payload: b})
	d, ok := told.(Deleted)
	if err != nil || !ok || d.SPI != sa.SPI || d.Dst != sa.Dst || d.ReqID != 7 || d.Packets != 1234 || d.In != sa.In || d.UDP != 4500 || d.IfID != 9 {
		t.Errorf("%+v, %v", told, err)
	}
	for n := range len(b) {
		if told, err := parseTold(header{kind: msgDelSA, payload: b[:n:n]}); err == nil {
			if d, ok := told.(Deleted); !ok || n < sizeSAID+4+sizeInfo || d.Packets != 1234 {
				t.Errorf("of %d bytes: %+v", n, told)
			}
		}
	}
}

// A policy that blocks has no template, and its action set.
func TestBlock(t *testing.T) {
	t.Parallel()
	p := Policy{Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix("0.0.0.0/0"), Hook: Outgoing, IfID: 4500}
	open := p.encode()
	p.Block = true
	b := p.encode()
	const action = 56 + 64 + 32 + 4 + 4 + 1 // after selector, limits, counters, priority, index and direction
	if b[action] != 1 || open[action] != 0 {
		t.Errorf("actions %d and %d", b[action], open[action])
	}
	for kind := range attributes(b[sizePolicy:]) {
		if kind != attrIfID {
			t.Errorf("attribute %d", kind)
		}
	}
}
