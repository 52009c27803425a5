package handshake

import (
	"bytes"
	"io"
	"net"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

func replays() {
	// instead gives what is sent in the place of a message, from those of an earlier session between the same two.
	type instead func(at int, m []byte, earlier [messages][]byte) []byte
	DescribeTable("installs nothing for a message out of place", func(ctx SpecContext, f instead) {
		for _, mutual := range []bool{false, true} {
			r := newArena(exchange.Config{Suites: smallest(), Mutual: mutual})
			earlier := r.record(ctx)
			for at := proposal; at < messages; at++ {
				found(r.strike(ctx, attack{at: byte(at), with: func(m []byte) []byte { return f(at, m, earlier) }}))
			}
			gateways.StillWorks(ctx, r.a, r.b)
		}
	},
		Entry("the same one of another session", instead(func(at int, _ []byte, earlier [messages][]byte) []byte { return earlier[at] })),
		Entry("the next one", instead(func(at int, _ []byte, earlier [messages][]byte) []byte { return earlier[at%done+1] })),
		Entry("the one before", instead(func(at int, _ []byte, earlier [messages][]byte) []byte { return earlier[(at+done-2)%done+1] })),
		Entry("the sender's next one", instead(func(at int, _ []byte, earlier [messages][]byte) []byte { return earlier[(at+1)%done+1] })),
		Entry("one of no type", instead(func(_ int, m []byte, _ [messages][]byte) []byte { m[0] = 77; return m })),
		Entry("an alert that nobody knows", instead(func(int, []byte, [messages][]byte) []byte { return []byte{255, 0, 0, 1, 99} })),
		Entry("an alert of many bytes", instead(func(int, []byte, [messages][]byte) []byte { return append([]byte{255, 0, 1, 0}, make([]byte, 256)...) })),
		Entry("an alert of none", instead(func(int, []byte, [messages][]byte) []byte { return []byte{255, 0, 0, 0} })),
		Entry("the body of zeros", instead(func(_ int, m []byte, _ [messages][]byte) []byte { clear(m[headerSize:]); return m })),
		Entry("the body of another session's, with its own nonce", instead(func(at int, m []byte, earlier [messages][]byte) []byte {
			if at != offer { // behind the suite's name
				return earlier[at]
			}
			name := headerSize + 1 + len(smallest()[0].String())
			return append(bytes.Clone(m[:name+32]), earlier[at][name+32:]...)
		})),
	)

	It("takes back what a message that is sent twice had brought about", func(ctx SpecContext) {
		for at := byte(proposal); at <= answer; at++ { // a second confirmation or done comes when nobody listens
			r := newArena(exchange.Config{Suites: smallest()})
			r.attack = attack{at: at, with: func(m []byte) []byte { return append(m, m...) }}
			if at%2 == 0 {
				found(gateways.Meet(ctx, r.a, r.evilB).Initiator)
				gateways.Untouched(r.a)
				gateways.Unkeyed(r.evilB)
			} else {
				found(gateways.Meet(ctx, r.evilA, r.b).Responder)
				gateways.Unkeyed(r.b)
				Expect(r.b.Plane.Had(gateways.TunnelName).Out).To(BeZero(), "outbound SAs that were installed")
			}
			Expect(r.hit).To(BeTrue())
			gateways.StillWorks(ctx, r.a, r.b)
		}
	}, SpecTimeout(specTime))

	It("installs nothing for a recording of all that the peer sent on the wire", func(ctx SpecContext) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest(), Mutual: true})
		tape := new(recording)
		a.Wrap = func(c net.Conn) net.Conn { return tape.of(c) }
		gateways.Succeeds(gateways.Meet(ctx, a, b))
		b.Forget()
		had := b.Plane.Had(gateways.TunnelName)

		c, err := b.Connect(ctx)
		Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		go io.Copy(io.Discard, c)
		Expect(tape.play(c)).To(BeNumerically(">", 4000))
		e := refusal(b.Outcome(ctx))
		Expect(e).NotTo(BeNil())
		Expect(e.Step).To(Equal("tls"))
		gateways.Unkeyed(b)
		Expect(b.Plane.Had(gateways.TunnelName)).To(Equal(had))
		a.Forget()
		gateways.StillWorks(ctx, a, b)
	}, SpecTimeout(specTime))

	It("installs nothing when both ends say what they said before", func(ctx SpecContext) {
		r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
		earlier := r.record(ctx)
		parrot := func(e *exchangetest.End) { e.Config.Tamper = func(m []byte) []byte { return earlier[m[0]] } }
		x, y := gateways.Twin(r.a, parrot), gateways.Twin(r.b, parrot)
		v := gateways.Meet(ctx, x, y)
		found(v.Initiator)
		gateways.Untouched(x, y)
	}, SpecTimeout(specTime))
}

// recording keeps what one side of a connection sends.
type recording struct {
	mu   sync.Mutex
	sent []byte
}

func (r *recording) of(c net.Conn) net.Conn { return &taped{c, r} }

// play sends it again, as far as anybody takes it, and tells how much it was.
func (r *recording) play(w io.Writer) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Write(r.sent)
	return len(r.sent)
}

type taped struct {
	net.Conn
	tape *recording
}

func (t *taped) Write(b []byte) (int, error) {
	t.tape.mu.Lock()
	t.tape.sent = append(t.tape.sent, b...)
	t.tape.mu.Unlock()
	return t.Conn.Write(b)
}
