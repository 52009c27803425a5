package handshake

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

// The messages, by their types in docs/exchange.md. Those with odd numbers are the initiator's.
const (
	proposal = 1 + iota
	offer
	answer
	confirmation
	done
	messages
)

const headerSize = 4

// smallest is the suite of the sweeps over all bytes.
func smallest() []pqc.Suite { return suites("mldsa44+mlkem512") }

func suites(names ...string) (out []pqc.Suite) {
	GinkgoHelper()
	for _, name := range names {
		s, err := pqc.ParseSuite(name)
		Expect(err).NotTo(HaveOccurred())
		out = append(out, s)
	}
	return out
}

// arena is two honest gateways, and the attacker who has the identity of either.
type arena struct {
	a, b         *gateways.Gateway // a begins
	evilA, evilB *gateways.Gateway
	attack       attack
	hit          bool // the attack took place
}

// attack replaces one message.
type attack struct {
	at   byte
	with func(message []byte) []byte
	end  bool // the attacker sends nothing after it; only where the victim would otherwise wait for the rest
}

func newArena(cfg exchange.Config) *arena {
	GinkgoHelper()
	r := new(arena)
	r.a, r.b = gateways.Pair(cfg)
	r.evilA = gateways.Twin(r.a, func(e *exchangetest.End) { e.Config.Tamper = func(m []byte) []byte { return r.tamper(r.evilA, m) } })
	r.evilB = gateways.Twin(r.b, func(e *exchangetest.End) { e.Config.Tamper = func(m []byte) []byte { return r.tamper(r.evilB, m) } })
	return r
}

func (r *arena) tamper(evil *gateways.Gateway, m []byte) []byte {
	if m[0] != r.attack.at {
		return m
	}
	r.hit = true
	m = r.attack.with(bytes.Clone(m))
	switch {
	case !r.attack.end:
	case len(m) == 0: // nothing will be written
		evil.EndWrites()
	default:
		evil.EndAfterWrite()
	}
	return m
}

// strike makes an attack on a tunnel without SAs and says that it has none afterwards: that its dataplane was given none,
// but where the victim is a responder who has been shown by an earlier message that the peer has the keys; such an SA is
// for what arrives, and goes again. It returns what the victim says.
func (r *arena) strike(ctx context.Context, x attack) error {
	GinkgoHelper()
	r.attack, r.hit = x, false
	from, to := r.evilA, r.b
	if x.at%2 == 0 {
		from, to = r.a, r.evilB
	}
	hadFrom, hadTo := from.Plane.Had(gateways.TunnelName), to.Plane.Had(gateways.TunnelName)
	v := gateways.Meet(ctx, from, to)
	Expect(r.hit).To(BeTrue(), "the attack took place")
	if x.at >= confirmation {
		hadTo.In++ // the answer was good
	}
	gateways.Unkeyed(to)
	Expect(to.Plane.Had(gateways.TunnelName)).To(Equal(hadTo), "SAs that the responder installed")
	if x.at == done { // whose sender is the attacker, and has sent his last message
		from.Forget()
		return v.Responder
	}
	gateways.Unkeyed(from)
	Expect(from.Plane.Had(gateways.TunnelName)).To(Equal(hadFrom), "SAs that the initiator installed")
	Expect(refusal(v.Initiator)).NotTo(BeNil())
	Expect(refusal(v.Responder)).NotTo(BeNil())
	if x.at%2 == 0 {
		return v.Initiator
	}
	return v.Responder
}

// refusal is the alert in an error of an exchange, nil if there is none.
func refusal(err error) *exchange.Error {
	var e *exchange.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// found says that a fault was found, here or at the other end, and not that time passed or that something is out of
// order.
func found(err error) {
	GinkgoHelper()
	e := refusal(err)
	Expect(e).NotTo(BeNil(), "an error of the exchange, not %v", err)
	Expect(e.Alert).NotTo(BeElementOf(exchange.Timeout, exchange.Internal, exchange.Cancelled, exchange.Busy), e.Error())
}

// record gives the messages of an honest exchange between gateways with the identities of the arena's.
func (r *arena) record(ctx context.Context) (m [messages][]byte) {
	GinkgoHelper()
	take := func(message []byte) []byte { m[message[0]] = bytes.Clone(message); return message }
	listen := func(e *exchangetest.End) { e.Config.Tamper = take }
	a, b := gateways.Twin(r.a, listen), gateways.Twin(r.b, listen)
	gateways.Succeeds(gateways.Meet(ctx, a, b))
	for at := proposal; at < messages; at++ {
		Expect(m[at]).NotTo(BeEmpty(), fmt.Sprint("message ", at))
	}
	return m
}
