package testlab

import (
	"context"
	"net/netip"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/lab"
)

// Carriage is a way for ESP to travel between the ends of a tunnel, in the words of a topology.
type Carriage struct{ Encapsulation, Family string }

func (c Carriage) String() string { return c.Encapsulation + " over " + c.Family }

// Carriages are all there are. The family changes with every one.
func Carriages() []Carriage {
	return []Carriage{{"udp", "ipv4"}, {"udp", "ipv6"}, {"esp", "ipv4"}, {"esp", "ipv6"}}
}

// SealedSize is the length of the ESP packet around an inner packet of n bytes: header, IV, ICV (RFC 4106), and the inner
// packet padded to a multiple of four with the two bytes of the trailer (RFC 4303 section 2.4).
func SealedSize(n int) int { return 8 + 8 + (n+2+3)/4*4 + 16 }

// Held are packets that a node has sealed and nobody has received.
type Held struct {
	Link string     // that they leave by
	Node string     // that seals them
	From netip.Addr // its outer address
}

// Packets sends payloads of one length from one mailbox to another, over a link that loses everything but for a recording,
// and returns the ESP packets.
func (h Held) Packets(ctx context.Context, l *lab.Lab, from, to Mailbox, payloads ...[]byte) (Outer, [][]byte) {
	GinkgoHelper()
	return h.Sealed(ctx, l, from.Headers()+len(payloads[0]), len(payloads), func() {
		GinkgoHelper()
		for _, payload := range payloads {
			Expect(payload).To(HaveLen(len(payloads[0])))
			from.Send(to, payload)
		}
	})
}

// Sealed is Packets where send sends n inner packets of size bytes.
func (h Held) Sealed(ctx context.Context, l *lab.Lab, size, n int, send func()) (Outer, [][]byte) {
	GinkgoHelper()
	recording := Record(l, h.Link)
	restore := Divert(l, h.Link, h.Node)
	send()
	outer, packets := recording.ESP(ctx, h.From, SealedSize(size), n)
	restore()
	return outer, packets
}
