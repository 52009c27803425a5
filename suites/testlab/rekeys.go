package testlab

import (
	"context"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
)

// Only are the events of a kind, in their order.
func Only(all []agent.Event, kind ipsec.EventKind) []agent.Event {
	return slices.DeleteFunc(slices.Clone(all), func(e agent.Event) bool { return e.Kind != kind })
}

// Established waits until both ends of a lab's only tunnel have told that it is.
func (e *Events) Established(ctx context.Context) {
	GinkgoHelper()
	e.Until(ctx, "established at both ends", func(all []agent.Event) bool { return len(Only(all, ipsec.Established)) == 2 })
}

// Settled waits until every inbound SA that was replaced is gone at both ends.
func (e *Events) Settled(ctx context.Context) []agent.Event {
	GinkgoHelper()
	return e.Until(ctx, "every replaced SA is retired", func(all []agent.Event) bool {
		return len(Only(all, ipsec.Retired)) >= len(Only(all, ipsec.Rekeyed))
	})
}

// Calm fails where an exchange failed that an end began, or a hard limit was reached. What only the other end tells of as
// failed is an exchange that gave way to its own, and whose messages came late.
func Calm(all []agent.Event) {
	GinkgoHelper()
	Expect(slices.DeleteFunc(Only(all, ipsec.Failed), func(e agent.Event) bool { return !e.Initiator })).To(BeEmpty())
	Expect(Only(all, ipsec.Expired)).To(BeEmpty())
}

// SA is named by the node that it leads to.
type SA struct {
	To  string
	SPI uint32
}

// Replaced are the packets of each SA that was replaced, as far as was told of it: sent, and accepted by its other end. ends
// are both nodes of the tunnel.
func Replaced(all []agent.Event, ends [2]string) (sent, got map[SA]uint64) {
	other := map[string]string{ends[0]: ends[1], ends[1]: ends[0]}
	sent, got = map[SA]uint64{}, map[SA]uint64{}
	for _, event := range Only(all, ipsec.Rekeyed) {
		sent[SA{other[event.Node], event.Old.Out}] = event.Replaced.Out.Packets
	}
	for _, event := range Only(all, ipsec.Retired) {
		got[SA{event.Node, event.Old.In}] = event.Replaced.In.Packets
	}
	return sent, got
}

// Balanced holds what was sent on each SA that was replaced against what its other end had accepted when it was retired:
// every packet that left arrived, under the SA that it left under. ends are both nodes of the tunnel.
func Balanced(all []agent.Event, ends [2]string) {
	GinkgoHelper()
	sent, got := Replaced(all, ends)
	Expect(sent).NotTo(BeEmpty())
	var packets uint64
	differ := map[SA][2]uint64{}
	for each, n := range sent {
		packets += n
		if got[each] != n {
			differ[each] = [2]uint64{n, got[each]}
		}
	}
	Expect(packets).NotTo(BeZero())
	Expect(differ).To(BeEmpty(), "packets sent and received on an SA, of %d on %d SAs", packets, len(sent))
	Expect(got).To(HaveLen(len(sent)))
	GinkgoWriter.Printf("%d packets on %d SAs that were replaced, none lost\n", packets, len(sent))
}
