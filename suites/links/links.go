// Package links verifies that a link does to packets what its topology says, whichever shaper does it.
package links

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"

	"pqlab/internal/netns"
	"pqlab/lab"
	shapers "pqlab/links"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

// Specs of the claim. Every shaper gets the same ones; what it cannot do here is skipped, with its reason.
func Specs(e testlab.Env) {
	Describe("links", func() {
		e.Guard()
		for _, name := range shapers.Names() {
			if name == "auto" || name == "none" { // of which the one takes the others, and the other is none
				continue
			}
			where := Label("emu", "vm")
			if name == "wire" { // which needs nothing that a guest's kernel has
				where = Label("emu")
			}
			Context("shaped by "+name, where, func() {
				s := shaper{e, name}
				delay(s)
				loss(s)
				copies(s)
				rate(s)
				queue(s)
				schedule(s)
				change(s)
				air(s)
				fates(s)
				program(s)
			})
		}
		Context("in virtual time", Label("emu"), virtual)
	})
}

const (
	timeout = 3 * time.Minute
	// quiet is how long nothing has to come until all has come.
	quiet = time.Second
	// seed of the links of specs: the same packets have the same fate each time.
	seed = 7
	// miss is the share of intervals that miss what they should have. A second seed then has to miss too.
	miss = 0.001

	linkName = "ab"
)

// shaper is what shapes the links of specs.
type shaper struct {
	testlab.Env
	name string
}

// pair is two nodes, a and b, and a link between them with nothing on it but what a spec sends.
type pair struct{ *lab.Lab }

// pair makes one. It skips the spec where the shaper cannot.
func (s shaper) pair(ctx context.Context, shape topology.Shape, seed uint64, flows ...func(*topology.Builder)) pair {
	GinkgoHelper()
	return s.fated(ctx, shape, seed, shapers.Fates{}, flows...)
}

// fated is a pair whose link records or replays fates.
func (s shaper) fated(ctx context.Context, shape topology.Shape, seed uint64, fates shapers.Fates, flows ...func(*topology.Builder)) pair {
	GinkgoHelper()
	b := topology.New("links").Host("a").Host("b").Ethernet("a", "b", topology.Name(linkName), topology.LinkSeed(seed))
	for _, f := range flows {
		f(b)
	}
	t, err := b.Topology()
	Expect(err).NotTo(HaveOccurred())
	t.Links[0].Shape = shape
	plan, err := t.Plan()
	Expect(err).NotTo(HaveOccurred())
	s.need(plan.Links)
	p := pair{s.Up(ctx, t, func(o *lab.Options) { o.Shaper, o.Fates = s.name, fates })}
	for _, node := range []string{"a", "b"} {
		p.silence(node)
	}
	return p
}

// need skips the spec where the shaper cannot make one of the links.
func (s shaper) need(links []topology.PlannedLink) {
	GinkgoHelper()
	_, err := shapers.Choose(links, s.name)
	var lacks *shapers.UnsupportedError
	if errors.As(err, &lacks) {
		Skip(strings.Join(lacks.Links[0].Missing, "; "))
	}
	Expect(err).NotTo(HaveOccurred())
}

// silence keeps a node from sending by itself: neither IPv6 nor ARP.
func (p pair) silence(node string) {
	GinkgoHelper()
	near, far := testlab.Ends(p.Lab, linkName, node)
	ns := p.Node(node).Namespace()
	Expect(ns.Set(netns.Sysctl{Key: "net/ipv6/conf/all/disable_ipv6", Value: "1"})).To(Succeed())
	h, err := ns.Netlink()
	Expect(err).NotTo(HaveOccurred())
	device, err := h.LinkByName(near.Name)
	Expect(err).NotTo(HaveOccurred())
	Expect(h.NeighSet(&netlink.Neigh{
		LinkIndex: device.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IP(p.address(far).AsSlice()), HardwareAddr: p.hardware(far),
	})).To(Succeed())
}

func (p pair) hardware(e testlab.End) net.HardwareAddr {
	GinkgoHelper()
	h, err := p.Node(e.Node).Namespace().Netlink()
	Expect(err).NotTo(HaveOccurred())
	device, err := h.LinkByName(e.Name)
	Expect(err).NotTo(HaveOccurred())
	return device.Attrs().HardwareAddr
}

// address of an end, of IPv4.
func (p pair) address(e testlab.End) netip.Addr {
	GinkgoHelper()
	for _, a := range e.Addresses {
		if a.Addr().Is4() {
			return a.Addr()
		}
	}
	Fail("no IPv4 address at " + e.Node)
	return netip.Addr{}
}

// set changes the link, for what a node sends or, if that is empty, for both.
func (p pair) set(from string, change ...string) {
	GinkgoHelper()
	c, err := topology.ParseChange(change)
	Expect(err).NotTo(HaveOccurred())
	Expect(p.SetLink(linkName, from, c)).To(Succeed())
}

// flow is a way over the link, with a prober on it.
type flow struct {
	*traffic.Prober
	link *shapers.Link
	side int // of the link, from which it comes
	sent *int
}

// from makes a way from a node to the other, of datagrams with so many bytes of payload.
func (p pair) from(node string, size int) flow {
	GinkgoHelper()
	near, far := testlab.Ends(p.Lab, linkName, node)
	prober, err := traffic.NewProber(p.Node(near.Node).Namespace().Do, p.Node(far.Node).Namespace().Do, netip.AddrPortFrom(p.address(far), 0), size)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(prober.Close)
	side := 0
	if node == "b" {
		side = 1
	}
	return flow{prober, p.Link(linkName), side, new(int)}
}

// send sends n datagrams, gap apart.
func (f flow) send(ctx context.Context, n int, gap time.Duration) flow {
	GinkgoHelper()
	const some = 256
	for n > 0 {
		k := min(n, some)
		Expect(f.Send(ctx, k, gap)).To(Succeed())
		*f.sent, n = *f.sent+k, n-k
		f.keepUp(ctx)
	}
	return f
}

// keepUp waits until a wire has read most of what was sent. It has a model of what it reads, and an interface room for so
// much that it has not read; where its process stands still that would be lost.
func (f flow) keepUp(ctx context.Context) {
	GinkgoHelper()
	if !f.link.Driven() {
		return
	}
	Eventually(ctx, func() int { return *f.sent - int(f.link.State().Wire[f.side].Packets) }).
		WithPolling(time.Millisecond).Should(BeNumerically("<", 500), "packets that the wire has not read")
}

// fates waits for what comes.
func (f flow) fates(ctx context.Context) traffic.Fates {
	GinkgoHelper()
	got, err := f.Settle(ctx, quiet)
	Expect(err).NotTo(HaveOccurred())
	Expect(got.Damaged).To(BeZero(), "datagrams that came with other bytes than were sent")
	return got
}

// undisturbed fails the spec unless everything came, once and in order.
func undisturbed(got traffic.Fates) {
	GinkgoHelper()
	late, repeated := got.Overtaken()
	Expect([]int{got.Missing(), late, repeated}).To(Equal([]int{0, 0, 0}), "missing, overtaken, repeated")
}

// trials tries until one try finds nothing wrong. A busy machine makes packets late now and then, and what is left to chance
// goes wrong once in so many times; neither goes wrong each time. Each try has a seed of its own, and those are fixed.
func trials(n uint64, try func(seed uint64) (wrong string)) {
	GinkgoHelper()
	var all []string
	for i := range n {
		wrong := try(seed + i)
		if wrong == "" {
			return
		}
		AddReportEntry("once more", wrong)
		all = append(all, wrong)
	}
	Fail(strings.Join(all, "\n"))
}
