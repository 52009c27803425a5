package handshake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

// flips are sweeps over all messages.
func flips() {
	It(fmt.Sprintf("installs nothing when one bit of a message is wrong: every %d bytes of every message, smallest suite", stride), func(ctx SpecContext) {
		cfg := exchange.Config{Suites: smallest(), Mutual: true}
		var attacks []attack
		for at, m := range newArena(cfg).record(ctx) {
			for offset := 0; offset < len(m); offset += next(offset) {
				attacks = append(attacks, flip(byte(at), offset))
			}
		}
		inArenas(ctx, cfg, attacks)
	}, SpecTimeout(specTime))

	It("installs nothing when one bit of a message is wrong: a sample of every message of every other suite", func(ctx SpecContext) {
		draw := rand.New(rand.NewPCG(1, 2))
		var fights errgroup.Group
		fights.SetLimit(2 * runtime.GOMAXPROCS(0))
		for _, suite := range pqc.Suites() {
			r := newArena(exchange.Config{Suites: []pqc.Suite{suite}, Mutual: true, Deadline: patient})
			var attacks []attack
			for at := byte(proposal); at < messages; at++ {
				for _, share := range []float64{draw.Float64(), 1} {
					attacks = append(attacks, attack{at: at, with: func(m []byte) []byte {
						m[headerSize+int(share*float64(len(m)-headerSize-1))] ^= 1
						return m
					}})
				}
			}
			fights.Go(func() error {
				defer GinkgoRecover()
				for _, x := range attacks {
					found(r.strike(ctx, x))
				}
				gateways.StillWorks(ctx, r.a, r.b)
				return nil
			})
		}
		Expect(fights.Wait()).To(Succeed())
	}, SpecTimeout(specTime))
}

func forgeries() {
	It("installs nothing by a signature with one wrong bit that both ends hash alike", func(ctx SpecContext) {
		for _, s := range pqc.Signatures() {
			for _, share := range []float64{0, 0.5, 0.999} {
				suite := pqc.Suite{Signature: s, KEM: pqc.KEMs()[0]}
				a, b := gateways.Pair(exchange.Config{Suites: []pqc.Suite{suite}, Mutual: true, Deadline: patient})
				forge := func(e *exchangetest.End) {
					e.Config.Suites = []pqc.Suite{{Signature: forger{s, share}, KEM: suite.KEM}}
				}
				v := gateways.Meet(ctx, a, gateways.Twin(b, forge))
				Expect(v.Initiator).To(MatchError(exchange.BadSignature))
				gateways.Untouched(a)
				v = gateways.Meet(ctx, gateways.Twin(a, forge), b)
				Expect(v.Responder).To(MatchError(exchange.BadSignature))
				gateways.Untouched(b)
				gateways.StillWorks(ctx, a, b)
			}
		}
	}, SpecTimeout(specTime))
}

// rekeys go wrong.
func rekeys() {
	for at := byte(proposal); at <= answer; at += 2 {
		It(fmt.Sprintf("leaves a keyed tunnel as it is when message %d of a rekey is wrong", at), func(ctx SpecContext) {
			r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
			gateways.Succeeds(gateways.Meet(ctx, r.a, r.b))
			before, had := r.b.Tunnel.Current(), r.b.Plane.Had(gateways.TunnelName)
			r.attack = flip(at, 40)
			found(gateways.Meet(ctx, r.evilA, r.b).Responder)
			Expect(r.b.Tunnel.Current()).To(Equal(before))
			Expect(r.b.Plane.Had(gateways.TunnelName)).To(Equal(had))
			gateways.Keyed(r.a, r.b, gateways.TunnelName)
			gateways.Succeeds(gateways.Meet(ctx, r.a, r.b))
			gateways.Keyed(r.a, r.b, gateways.TunnelName)
		}, SpecTimeout(specTime))
	}
	for at := byte(offer); at <= confirmation; at += 2 {
		It(fmt.Sprintf("leaves a keyed tunnel as it is when message %d of a rekey is wrong, and then rekeys by itself", at), func(ctx SpecContext) {
			r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
			gateways.Succeeds(gateways.Meet(ctx, r.a, r.b))
			before, had := r.a.Tunnel.Current(), r.a.Plane.Had(gateways.TunnelName)
			r.attack = flip(at, 40)
			var attempts atomic.Int32
			looked := make(chan struct{})
			r.a.Goes(func(ctx context.Context) (net.Conn, error) {
				if attempts.Add(1) == 1 {
					return r.evilB.Connect(ctx)
				}
				<-looked
				return r.b.Connect(ctx)
			})
			err := r.a.Tunnel.Rekey(ctx)
			Expect(r.a.Tunnel.Current()).To(Equal(before))
			Expect(r.a.Plane.Had(gateways.TunnelName)).To(Equal(had))
			gateways.Keyed(r.a, r.b, gateways.TunnelName)
			close(looked)
			found(err)
			Expect(r.b.Outcome(ctx)).To(Succeed())
			Eventually(ctx, r.a.Tunnel.Current).ShouldNot(Equal(before))
			gateways.Keyed(r.a, r.b, gateways.TunnelName)
		}, SpecTimeout(specTime))
	}
	It("goes on sending with the old SA when message 5 of a rekey is wrong, and then rekeys by itself", func(ctx SpecContext) {
		r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
		gateways.Succeeds(gateways.Meet(ctx, r.a, r.b))
		before, had := r.b.Tunnel.Current(), r.b.Plane.Had(gateways.TunnelName)
		r.attack = flip(done, 40)
		looked := make(chan struct{})
		r.b.Goes(func(ctx context.Context) (net.Conn, error) {
			<-looked
			return r.a.Connect(ctx)
		})
		v := gateways.Meet(ctx, r.evilA, r.b)
		Expect(r.b.Tunnel.Current()).To(Equal(before))
		Expect(r.b.Plane.Had(gateways.TunnelName).Out).To(Equal(had.Out))
		gateways.Keyed(r.a, r.b, gateways.TunnelName)
		close(looked)
		found(v.Responder)
		Expect(r.a.Outcome(ctx)).To(Succeed())
		Eventually(ctx, r.b.Tunnel.Current).ShouldNot(Equal(before))
		gateways.Keyed(r.a, r.b, gateways.TunnelName)
	}, SpecTimeout(specTime))
}

// next is how far a sweep goes on: the header and the first fields are never left out.
func next(offset int) int {
	if offset < 16 {
		return 1
	}
	return stride
}

func flip(at byte, offset int) attack {
	return attack{at, exchangetest.Flip(at, offset, 1<<(offset%8)), offset > 0 && offset < headerSize}
}

// inArenas makes the attacks, shared out between arenas that fight at once, and says that a tunnel still works after all
// that it has been through.
func inArenas(ctx context.Context, cfg exchange.Config, attacks []attack) {
	GinkgoHelper()
	var fights sync.WaitGroup
	n := 2 * runtime.GOMAXPROCS(0)
	for i := range n {
		r := newArena(cfg)
		fights.Go(func() {
			defer GinkgoRecover()
			for j := i; j < len(attacks); j += n {
				found(r.strike(ctx, attacks[j]))
			}
			gateways.StillWorks(ctx, r.a, r.b)
		})
	}
	fights.Wait()
}

// forger is a signature scheme whose signer gets one bit wrong, at a share of the signature's length.
type forger struct {
	pqc.Signature
	at float64
}

func (f forger) GenerateKey() (pqc.SigningKey, error) {
	k, err := f.Signature.GenerateKey()
	return forging{k, f.at}, err
}

type forging struct {
	pqc.SigningKey
	at float64
}

func (f forging) Sign(message []byte) ([]byte, error) {
	s, err := f.SigningKey.Sign(message)
	if err == nil {
		s[int(f.at*float64(len(s)))] ^= 1
	}
	return s, err
}
