package xfrmnl

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func testSA(v6 bool) *SA {
	sa := &SA{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0x12345678, ReqID: 7,
		Key: new([32]byte), Salt: [4]byte{0xa, 0xb, 0xc, 0xd}, Direction: In, UDP: 4500, IfID: 9, Window: 4096, In: 0x1_0000_0002, Out: 0x3_0000_0004,
		Soft: Limits{Bytes: 1, Packets: 2, Seconds: 3}, Hard: Limits{Bytes: 4, Packets: 5, Seconds: 6},
	}
	for i := range sa.Key {
		sa.Key[i] = byte(i + 1)
	}
	if v6 {
		sa.Src, sa.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	return sa
}

func collect(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for kind, value := range attributes(b) {
		all[kind] = value
	}
	return all
}

// TestSA holds the bytes against the structures of another implementation, and against the header file where that has
// none.
func TestSA(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		sa := testSA(v6)
		b := sa.encode()
		if len(b)%4 != 0 {
			t.Errorf("%d bytes", len(b))
		}
		info := nl.DeserializeXfrmUsersaInfo(b[:nl.SizeofXfrmUsersaInfo])
		if !info.Saddr.ToIP().Equal(sa.Src.AsSlice()) || !info.Id.Daddr.ToIP().Equal(sa.Dst.AsSlice()) ||
			info.Id.Spi != nl.Swap32(sa.SPI) || info.Id.Proto != unix.IPPROTO_ESP || info.Reqid != 7 || info.Family != family(sa.Dst) ||
			info.Mode != 1 || info.ReplayWindow != 0 || info.Flags != 32|128 || info.Sel.Family != 0 {
			t.Errorf("%+v", info)
		}
		want := nl.XfrmLifetimeCfg{
			SoftByteLimit: 1, HardByteLimit: 4, SoftPacketLimit: 2, HardPacketLimit: 5, SoftAddExpiresSeconds: 3, HardAddExpiresSeconds: 6,
		}
		if info.Lft != want {
			t.Errorf("%+v", info.Lft)
		}
		all := collect(b[nl.SizeofXfrmUsersaInfo:])
		aead := nl.DeserializeXfrmAlgoAEAD(all[nl.XFRMA_ALG_AEAD])
		key := append(slices.Clone(sa.Key[:]), sa.Salt[:]...)
		if unix.ByteSliceToString(aead.AlgName[:]) != "rfc4106(gcm(aes))" || aead.AlgKeyLen != 288 || aead.AlgICVLen != 128 || !bytes.Equal(aead.AlgKey, key) {
			t.Errorf("%+v", aead)
		}
		esn := all[nl.XFRMA_REPLAY_ESN_VAL]
		for i, v := range []uint32{128, 4, 2, 3, 1, 4096} { // bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window
			if got := native.Uint32(esn[4*i:]); got != v {
				t.Errorf("word %d of the ESN state is %d, not %d", i, got, v)
			}
		}
		if len(esn) != 24+512 || !bytes.Equal(esn[24:], bytes.Repeat([]byte{0xff}, 512)) {
			t.Errorf("%d bytes of ESN state", len(esn))
		}
		encap := nl.DeserializeXfrmEncapTmpl(all[nl.XFRMA_ENCAP])
		if encap.EncapType != 2 || encap.EncapSport != nl.Swap16(4500) || encap.EncapDport != nl.Swap16(4500) {
			t.Errorf("%+v", encap)
		}
		if !bytes.Equal(all[nl.XFRMA_SA_DIR], []byte{1}) || native.Uint32(all[nl.XFRMA_IF_ID]) != 9 {
			t.Errorf("%v", all)
		}
		// What the kernel says of it has the same form.
		s, err := parseState(b)
		if err != nil || s.SPI != sa.SPI || s.Src != sa.Src || s.Dst != sa.Dst || s.ReqID != 7 || s.In != sa.In || s.Out != sa.Out || s.Window != 4096 ||
			s.Soft != sa.Soft || s.Hard != sa.Hard || s.Direction != In || s.UDP != 4500 || s.IfID != 9 {
			t.Errorf("%+v %v", s, err)
		}
	}
}

// An SA without the options carries none of them; and one for outgoing packets has no window where the kernel knows that
// it is one, but one of the smallest where it does not.
func TestPlainSA(t *testing.T) {
	t.Parallel()
	sa := testSA(false)
	sa.UDP, sa.IfID, sa.Window, sa.In = 0, 0, 0, 0
	for direction, words := range map[Direction]int{Out: 0, Undirected: 1} {
		sa.Direction = direction
		all := collect(sa.encode()[nl.SizeofXfrmUsersaInfo:])
		if _, ok := all[nl.XFRMA_ENCAP]; ok {
			t.Error("there is an encapsulation")
		}
		if _, ok := all[nl.XFRMA_IF_ID]; ok {
			t.Error("there is an interface")
		}
		if _, ok := all[nl.XFRMA_SA_DIR]; ok != (direction == Out) {
			t.Error("direction")
		}
		if esn := all[nl.XFRMA_REPLAY_ESN_VAL]; len(esn) != 24+4*words || native.Uint32(esn) != uint32(words) || native.Uint32(esn[20:]) != uint32(32*words) {
			t.Errorf("%v: %v", direction, esn)
		}
	}
}

// The buffer with the key in it is made once: growing it would leave a copy behind.
func TestKeyIsInOneBuffer(t *testing.T) {
	t.Parallel()
	if b := testSA(true).encode(); cap(b) != 1024 {
		t.Errorf("%d bytes in a buffer of %d", len(b), cap(b))
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	p := &Policy{
		Src: netip.MustParsePrefix("2001:db8:1::/48"), Dst: netip.MustParsePrefix("2001:db8:2::/56"), Hook: Forwarding, Priority: 77,
		OuterSrc: netip.MustParseAddr("192.0.2.1"), OuterDst: netip.MustParseAddr("192.0.2.2"), ReqID: 5, SPI: 0x100, IfID: 3,
	}
	b := p.encode()
	info := nl.DeserializeXfrmUserpolicyInfo(b[:nl.SizeofXfrmUserpolicyInfo])
	if info.Sel.Family != unix.AF_INET6 || info.Sel.PrefixlenD != 56 || info.Sel.PrefixlenS != 48 || info.Sel.Proto != 0 ||
		info.Priority != 77 || info.Dir != 2 || info.Action != 0 || info.Index != 0 ||
		!info.Sel.Daddr.ToIP().Equal(p.Dst.Addr().AsSlice()) || !info.Sel.Saddr.ToIP().Equal(p.Src.Addr().AsSlice()) {
		t.Errorf("%+v", info)
	}
	if l := info.Lft; l.SoftByteLimit != None || l.HardByteLimit != None || l.SoftPacketLimit != None || l.HardPacketLimit != None || l.HardAddExpiresSeconds != 0 {
		t.Errorf("%+v", l)
	}
	all := collect(b[nl.SizeofXfrmUserpolicyInfo:])
	tmpl := nl.DeserializeXfrmUserTmpl(all[nl.XFRMA_TMPL])
	if len(all[nl.XFRMA_TMPL]) != nl.SizeofXfrmUserTmpl || tmpl.XfrmId.Spi != nl.Swap32(0x100) || tmpl.XfrmId.Proto != unix.IPPROTO_ESP ||
		!tmpl.XfrmId.Daddr.ToIP().Equal(p.OuterDst.AsSlice()) || !tmpl.Saddr.ToIP().Equal(p.OuterSrc.AsSlice()) || tmpl.Family != unix.AF_INET ||
		tmpl.Reqid != 5 || tmpl.Mode != 1 || tmpl.Optional != 0 || tmpl.Aalgos != 1<<32-1 {
		t.Errorf("%+v", tmpl)
	}
	if native.Uint32(all[nl.XFRMA_IF_ID]) != 3 {
		t.Error("interface")
	}
}

func TestTold(t *testing.T) {
	t.Parallel()
	sa := testSA(true)
	info := sa.encode()
	b := append(slices.Clone(info[:sizeInfo]), 1, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, info[sizeInfo:]...)
	got, err := parseTold(header{kind: msgExpire, payload: b})
	e, ok := got.(Expire)
	if err != nil || !ok || !e.Hard || e.SPI != sa.SPI || e.Dst != sa.Dst || e.IfID != 9 {
		t.Errorf("%+v %v", got, err)
	}
	p := &Policy{
		Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("10.0.0.0/8"),
		OuterSrc: netip.MustParseAddr("192.0.2.1"), OuterDst: netip.MustParseAddr("192.0.2.2"), ReqID: 5,
	}
	policy := p.encode()
	b = append(make([]byte, 96), policy[:sizePolicy]...)
	native.PutUint32(b[96+156:], 41)
	b = append(b, make([]byte, 16)...)
	b = append(b, policy[sizePolicy:]...)
	got, err = parseTold(header{kind: msgAcquire, payload: b})
	if want := (Acquire{p.OuterSrc, p.OuterDst, 5, 41}); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := parseTold(header{kind: msgNewSA, payload: b}); got != nil || err != nil {
		t.Errorf("%+v %v", got, err)
	}
}

func answer(kind, flags uint16, seq uint32, payload []byte) []byte {
	b := native.AppendUint32(nil, uint32(16+len(payload)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	return append(append(b, 0, 0, 0, 0), payload...)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	c := &Conn{seq: 5}
	code := func(n int32, rest ...byte) []byte {
		return append(native.AppendUint32(nil, uint32(n)), rest...)
	}
	if done, err := c.answers(answer(unix.NLMSG_ERROR, 0, 4, code(-1)), nil); done || err != nil {
		t.Error("an old answer is taken for this one's", done, err)
	}
	if done, err := c.answers(answer(unix.NLMSG_ERROR, 0, 5, code(0)), nil); !done || err != nil {
		t.Error(done, err)
	}
	request := answer(msgNewSA, 0, 5, make([]byte, 8))
	text := attribute(nil, unix.NLMSGERR_ATTR_MSG, []byte("because\x00"))
	for _, whole := range []bool{true, false} {
		b, flags := request, uint16(unix.NLM_F_ACK_TLVS)
		if !whole {
			b, flags = request[:16], flags|unix.NLM_F_CAPPED
		}
		payload := append(code(-int32(unix.EINVAL), b...), text...)
		done, err := c.answers(answer(unix.NLMSG_ERROR, flags, 5, payload), nil)
		if !done || err == nil || err.Error() != "invalid argument (because)" {
			t.Error(done, err)
		}
	}
	if done, err := c.answers([]byte{200, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, nil); !done || err == nil {
		t.Error("cut short", done, err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(answer(msgNewSA, 0, 1, testSA(false).encode()))
	f.Add(answer(msgExpire, 0, 1, append(testSA(true).encode(), 1, 0, 0, 0, 0, 0, 0, 0)))
	f.Add(answer(msgAcquire, 0, 1, make([]byte, 300)))
	f.Add(answer(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 1, binary.NativeEndian.AppendUint32(nil, 5)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Conn{seq: 1}
		c.answers(slices.Clone(b), func(b []byte) error { _, err := parseState(b); return err })
		for len(b) > 0 {
			m, rest, ok := message(b)
			if !ok {
				break
			}
			parseTold(m)
			b = rest
		}
	})
}
