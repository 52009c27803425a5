package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

// alteration makes the ends differ: the kernel's SAs are replaced behind the back of the node that installed them, so that
// to each other they are as if one of them were wrong.
type alteration struct {
	name    string
	how     edit
	refused refusal // by each end, of one packet
	oneWay  bool    // only what the kernel sends is altered
}

// edit changes the SAs of the kernel's end.
type edit func(in, out kernelSA)

// alterations are mistakes that an implementation of ESP may make and agree with itself.
func alterations() []alteration {
	forged := refusal{tunnel: ipsec.Drops{Integrity: 1}, name: "XfrmInStateProtoError"}
	stray := refusal{none: ipsec.Drops{UnknownSPI: 1}, name: "XfrmInNoStates"}
	replay := refusal{tunnel: ipsec.Drops{Replay: 1}, name: "XfrmInStateSeqError"}
	return []alteration{
		{"another salt", both(func(sa kernelSA) { sa.salt()[0] ^= 1 }), forged, false},
		{"one bit of the key changed", both(func(sa kernelSA) { sa.key()[31] ^= 1 }), forged, false},
		{"the keys of the two directions swapped", func(in, out kernelSA) {
			a, b := in.keys(), out.keys()
			for i := range a {
				a[i], b[i] = b[i], a[i]
			}
		}, forged, false},
		{"the high half of the sequence number one too high", both(func(sa kernelSA) { sa.count(1 << 32) }), forged, false},
		{"sequence numbers of 32 bits", both(kernelSA.short), forged, false},
		{"sequence numbers off by one", func(in, out kernelSA) {
			in.count(1)
			out.count(1<<64 - 1)
		}, replay, false},
		{"an ICV of 96 bits", both(func(sa kernelSA) { sa.icv(96) }), forged, false},
		{"another SPI", func(_, out kernelSA) { out.info()[idSPI+3] ^= 0x80 }, stray, true},
	}
}

func both(each func(kernelSA)) edit {
	return func(in, out kernelSA) { each(in); each(out) }
}

// altered makes the ends disagree, and has the checks of the other specs fail. It comes after those, because the counts of
// both ends are not the same any more.
func altered(rig func() *rig, v6 bool) {
	It("pass what they should where SAs of the kernel's were put back as they were", func(ctx SpecContext) {
		r := rig()
		r.alter(ctx, both(func(kernelSA) {}))
		for _, w := range r.ways(ctx, v6) {
			w.pass(testlab.Mark())
		}
		r.refusedNothing(ctx)
	}, NodeTimeout(timeout))

	for _, a := range alterations() {
		It("pass nothing, and count why, where SAs of the kernel's have "+a.name, func(ctx SpecContext) {
			r := rig()
			r.alter(ctx, a.how)
			for _, w := range r.ways(ctx, v6) {
				if a.oneWay && w.opener == r.kernel {
					continue
				}
				r.patience = 100 * time.Millisecond // it never comes
				Expect(InterceptGomegaFailure(func() { w.pass(testlab.Mark()) })).To(MatchError(ContainSubstring(os.ErrDeadlineExceeded.Error())), "%v", w)
				r.patience = testlab.Patience(patience)
				Eventually(ctx, func() string { return r.beyond(ctx) }).ShouldNot(BeEmpty(), "%v: what else should be refused", w)
				want := a.refused
				if w.opener != r.kernel {
					want.name = ""
				}
				r.refused(ctx, w.opener, want)
			}
		}, NodeTimeout(timeout))
	}
}

// alter replaces the SAs of the kernel's end by altered ones, unknown to the node that installed them.
func (r *rig) alter(ctx context.Context, how edit) {
	GinkgoHelper()
	spis := r.state(ctx, r.kernel).SPIs
	here, there := r.tunnel.Plan.OuterB, r.tunnel.Plan.OuterA
	Expect(r.Node(r.kernel).Namespace().Do(func() error {
		in, err := readSA(here, spis.In)
		if err != nil {
			return err
		}
		out, err := readSA(there, spis.Out)
		if err != nil {
			return err
		}
		how(in, out)
		spi := binary.BigEndian.Uint32(out[idSPI:])
		err = errors.Join(deleteSA(here, spis.In), addSA(in))
		if spi == spis.Out { // else beside it, because its node asks for its counts
			err = errors.Join(err, deleteSA(there, spis.Out))
		}
		return errors.Join(err, addSA(out), useSA(spis.Out, spi))
	})).To(Succeed())
}

// useSA makes policies that name an SA name another one.
func useSA(old, spi uint32) error {
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	for _, p := range policies {
		if err == nil && old != spi && len(p.Tmpls) == 1 && p.Tmpls[0].Spi == int(old) {
			p.Tmpls[0].Spi = int(spi)
			err = netlink.XfrmPolicyUpdate(&p)
		}
	}
	return err
}

// kernelSA is an SA as the kernel gives it to whoever administers the namespace, and takes it: struct xfrm_usersa_info and
// attributes (linux/xfrm.h).
type kernelSA []byte

// Offsets in struct xfrm_usersa_info and struct xfrm_algo_aead, and sizes.
const (
	idSPI    = 72
	flags    = 216
	sizeInfo = 224
	icvLen   = 68
	aeadKey  = 72
	saltLen  = 4
)

// readSA reads an SA of the thread's namespace.
func readSA(dst netip.Addr, spi uint32) (kernelSA, error) {
	all, err := ask(nl.XFRM_MSG_GETSA, 0, saID(dst, spi))
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func addSA(sa kernelSA) error {
	_, err := ask(nl.XFRM_MSG_NEWSA, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, sa)
	return err
}

func deleteSA(dst netip.Addr, spi uint32) error {
	_, err := ask(nl.XFRM_MSG_DELSA, unix.NLM_F_ACK, saID(dst, spi))
	return err
}

func ask(kind, flags int, payload []byte) ([][]byte, error) {
	request := nl.NewNetlinkRequest(kind, flags)
	request.AddRawData(payload)
	all, err := request.Execute(unix.NETLINK_XFRM, 0)
	if err != nil {
		return nil, fmt.Errorf("XFRM message %#x: %w", kind, err)
	}
	return all, nil
}

// saID is a struct xfrm_usersa_id.
func saID(dst netip.Addr, spi uint32) []byte {
	b := append(make([]byte, 0, 24), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b[:16], spi)
	family := uint16(unix.AF_INET)
	if dst.Is6() {
		family = unix.AF_INET6
	}
	return append(binary.NativeEndian.AppendUint16(b, family), unix.IPPROTO_ESP, 0)
}

func (sa kernelSA) info() []byte { return sa[:sizeInfo] }

func (sa kernelSA) attribute(kind uint16) []byte {
	GinkgoHelper()
	all, err := nl.ParseRouteAttr(sa[sizeInfo:])
	Expect(err).NotTo(HaveOccurred())
	for _, a := range all {
		if a.Attr.Type == kind {
			return a.Value
		}
	}
	Fail(fmt.Sprintf("the SA has no attribute %d", kind))
	return nil
}

// keys are key and salt.
func (sa kernelSA) keys() []byte { return sa.attribute(nl.XFRMA_ALG_AEAD)[aeadKey:] }
func (sa kernelSA) key() []byte  { return sa.keys()[:len(sa.keys())-saltLen] }
func (sa kernelSA) salt() []byte { return sa.keys()[len(sa.keys())-saltLen:] }

func (sa kernelSA) icv(bits uint32) {
	binary.NativeEndian.PutUint32(sa.attribute(nl.XFRMA_ALG_AEAD)[icvLen:], bits)
}

// short takes extended sequence numbers away.
func (sa kernelSA) short() {
	const extended = 128 // XFRM_STATE_ESN
	sa.info()[flags] &^= extended
}

// count moves the sequence numbers of both directions, of which the SA has one, on by n.
func (sa kernelSA) count(n uint64) {
	esn := sa.attribute(nl.XFRMA_REPLAY_ESN_VAL) // bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window
	for _, at := range []int{4, 8} {
		low, high := esn[at:], esn[at+8:]
		seq := uint64(binary.NativeEndian.Uint32(high))<<32 | uint64(binary.NativeEndian.Uint32(low))
		if seq == 0 {
			continue // of the other direction
		}
		seq += n
		binary.NativeEndian.PutUint32(low, uint32(seq))
		binary.NativeEndian.PutUint32(high, uint32(seq>>32))
	}
}
