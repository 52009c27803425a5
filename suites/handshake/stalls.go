package handshake

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// patience of the victims, long enough for the honest steps of an exchange on a busy machine.
const patience = 1500 * time.Millisecond

func stalls() {
	It("gives a peer that stalls its deadline, serves others meanwhile, and installs nothing", func(ctx SpecContext) {
		var fights sync.WaitGroup
		for at := byte(proposal); at < messages; at++ {
			x, y, err := exchangetest.Pair(exchange.Config{Suites: smallest()})
			Expect(err).NotTo(HaveOccurred())
			a, b := open(x, tunnelName), open(y, tunnelName)
			stalled := make(chan struct{})
			stall := func(e *exchangetest.End) {
				e.Config.Deadline = time.Hour // so that it is the victim who gives up
				e.Config.Tamper = func(m []byte) []byte {
					if m[0] == at {
						close(stalled)
						return nil
					}
					return m
				}
			}
			hasty := func(e *exchangetest.End) { e.Endpoint.Deadline, e.Config.Deadline = patience, patience }
			from, to := twin(a, stall), twin(b, hasty)
			if at%2 == 0 {
				from, to = twin(a, hasty), twin(b, stall)
			}
			others := bystander(to)
			fights.Go(func() {
				defer GinkgoRecover()
				start := time.Now()
				initiator := make(chan error, 1)
				from.goes(to.connect)
				go func() { initiator <- from.tunnel.Rekey(ctx) }()
				<-stalled
				Expect(others.tunnel.Establish(ctx)).To(Succeed())
				Eventually(ctx, to.settled).Should(Receive()) // done is not acknowledged
				keyed(others, to, others.name)
				v := verdict{<-initiator, to.failure(ctx)}
				victim, judged, other := to, v.responder, v.initiator
				if at%2 == 0 {
					victim, judged, other = from, v.initiator, v.responder
				}
				Expect(judged).To(MatchError(exchange.Timeout), "message %d", at)
				Expect(refusal(judged).Remote).To(BeFalse())
				Expect(time.Since(start)).To(BeNumerically(">=", patience))
				unkeyed(victim)
				if at == done { // whose sender believes that he sent it
					Expect(victim.plane.had(tunnelName)).To(Equal(given{In: 1}))
					return
				}
				Expect(refusal(other)).NotTo(BeNil())
				unkeyed(from)
				unkeyed(to)
				Expect(victim.plane.had(tunnelName)).To(Equal(given{}))
			})
		}
		fights.Wait()
	}, SpecTimeout(specTime))

	It("gives a peer that stays silent in the TLS handshake its deadline", func(ctx SpecContext) {
		x, y, err := exchangetest.Pair(exchange.Config{Suites: smallest()})
		Expect(err).NotTo(HaveOccurred())
		for _, e := range []*exchangetest.End{&x, &y} {
			e.Endpoint.Deadline, e.Config.Deadline = patience, patience
		}
		a, b := open(x, tunnelName), open(y, tunnelName)
		c, err := b.connect(ctx)
		Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		Expect(err).NotTo(HaveOccurred())
		defer l.Close()
		a.goes(func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", l.Addr().String())
		})
		Expect(a.tunnel.Establish(ctx)).To(MatchError(exchange.Timeout))
		Expect(b.outcome(ctx)).To(MatchError(exchange.Timeout))
		untouched(a, b)
		stillWorks(ctx, a, b)
	}, SpecTimeout(specTime))
}

// bystander is the honest peer of another tunnel of a gateway's.
func bystander(of *gateway) *gateway {
	GinkgoHelper()
	const name = "t2"
	cert := identity()
	cfg := exchange.Config{Suites: smallest(), Peer: exchange.Peer{Pin: exchange.PinOf(cert.Leaf)}}
	of.add(name, cfg)
	cfg.Peer.Pin = exchange.PinOf(of.end.Endpoint.Certificate.Leaf)
	g := open(exchangetest.End{Endpoint: exchange.Endpoint{Certificate: cert}, Config: cfg}, name)
	g.goes(of.connect)
	return g
}

// failure is the next exchange that the gateway answered in vain.
func (g *gateway) failure(ctx context.Context) error {
	GinkgoHelper()
	select {
	case err := <-g.failed:
		return err
	case <-ctx.Done():
		Fail("no exchange failed")
		return nil
	}
}

// crowd is how many hostile connections come.
const crowd = 1000

func crowds() {
	It(fmt.Sprintf("holds little for %d connections that say nothing, and serves an honest peer after them", crowd), func(ctx SpecContext) {
		a, b := pair(exchange.Config{Suites: smallest()})
		succeeds(meet(ctx, a, b)) // what is made once is made
		a.forget()
		b.forget()
		before := measure()
		conns := make([]net.Conn, crowd)
		for i := range conns {
			var err error
			conns[i], err = b.connect(ctx)
			Expect(err).NotTo(HaveOccurred())
		}
		for range 100 { // as they come
			now := measure()
			Expect(now.goroutines-before.goroutines).To(BeNumerically("<=", 2*keyingPlaces), "goroutines")
			Expect(now.heap).To(BeNumerically("<=", before.heap+(32<<20)), "bytes of heap")
			runtime.Gosched()
		}
		honest := make(chan error, 1)
		a.goes(b.connect)
		go func() { honest <- a.tunnel.Establish(ctx) }()
		for _, c := range conns {
			c.Close()
		}
		Expect(<-honest).To(Succeed())
		Eventually(ctx, b.settled).Should(Receive())
		for range conns {
			Expect(refusal(b.failure(ctx))).NotTo(BeNil())
		}
		keyed(a, b, tunnelName)
		Expect(b.plane.had(tunnelName)).To(Equal(given{In: 2, Out: 2}))
	}, SpecTimeout(specTime))

	It(fmt.Sprintf("installs nothing for %d hostile connections, keeps nothing of them, and serves an honest peer between them", crowd), func(ctx SpecContext) {
		a, b := pair(exchange.Config{Suites: smallest()})
		others := bystander(b)
		Expect(others.tunnel.Establish(ctx)).To(Succeed())
		Expect(b.outcome(ctx)).To(Succeed())
		known, stranger := a.end.Endpoint.Certificate, identity()
		as := func(c tls.Certificate) *tls.Config {
			return &tls.Config{
				Certificates: []tls.Certificate{c}, InsecureSkipVerify: true, NextProtos: []string{exchange.ALPN},
				CurvePreferences: []tls.CurveID{tls.X25519},
			}
		}
		proposing := newArena(exchange.Config{Suites: smallest()}).record(ctx)[proposal]
		before := measure()
		for i := range crowd {
			c, err := b.connect(ctx)
			Expect(err).NotTo(HaveOccurred())
			switch i % 4 {
			case 0:
				c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			case 1:
				c.Write([]byte{22, 3, 1, 0, 100, 1})
			case 2: // a stranger proposes
				t := tls.Client(c, as(stranger))
				t.Write(proposing)
				io.Copy(io.Discard, t)
			case 3: // a peer proposes and hangs up
				t := tls.Client(c, as(known))
				t.Write(proposing)
				t.Read(make([]byte, 1))
			}
			c.Close()
			Expect(refusal(b.failure(ctx))).NotTo(BeNil())
			if i%100 == 50 {
				Expect(others.tunnel.Rekey(ctx)).To(Succeed())
				Expect(b.outcome(ctx)).To(Succeed())
			}
		}
		untouched(b)
		after := measure()
		Expect(after.goroutines-before.goroutines).To(BeNumerically("<=", 20), "goroutines")
		Expect(after.heap).To(BeNumerically("<=", before.heap+(8<<20)), "bytes of heap")
		stillWorks(ctx, a, b)
	}, SpecTimeout(specTime))
}

// keyingPlaces is how many exchanges package keying answers at once.
const keyingPlaces = 64

type usage struct {
	goroutines int
	heap       uint64 // bytes
}

func measure() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), m.HeapAlloc}
}
