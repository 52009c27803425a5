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
	"pqlab/suites/testlab"
	"pqlab/suites/testlab/gateways"
)

func stalls() {
	// Of the victims, long enough for the honest steps of an exchange on a busy machine.
	patience := max(testlab.Patience(1500*time.Millisecond), 5*time.Second)

	It("gives a peer that stalls its deadline, serves others meanwhile, and installs nothing", func(ctx SpecContext) {
		var fights sync.WaitGroup
		for at := byte(proposal); at < messages; at++ {
			x, y, err := exchangetest.Pair(exchange.Config{Suites: smallest()})
			Expect(err).NotTo(HaveOccurred())
			a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
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
			from, to := gateways.Twin(a, stall), gateways.Twin(b, hasty)
			if at%2 == 0 {
				from, to = gateways.Twin(a, hasty), gateways.Twin(b, stall)
			}
			others := bystander(to)
			fights.Go(func() {
				defer GinkgoRecover()
				start := time.Now()
				initiator := make(chan error, 1)
				from.Goes(to.Connect)
				go func() { initiator <- from.Tunnel.Rekey(ctx) }()
				<-stalled
				Expect(others.Tunnel.Establish(ctx)).To(Succeed())
				Eventually(ctx, to.Settled).Should(Receive()) // done is not acknowledged
				gateways.Keyed(others, to, others.Name)
				v := gateways.Verdict{Initiator: <-initiator, Responder: to.Failure(ctx)}
				victim, judged, other := to, v.Responder, v.Initiator
				if at%2 == 0 {
					victim, judged, other = from, v.Initiator, v.Responder
				}
				Expect(judged).To(MatchError(exchange.Timeout), "message %d", at)
				Expect(refusal(judged).Remote).To(BeFalse())
				Expect(time.Since(start)).To(BeNumerically(">=", patience))
				gateways.Unkeyed(victim)
				if at == done { // whose sender believes that he sent it
					Expect(victim.Plane.Had(gateways.TunnelName)).To(Equal(gateways.Given{In: 1}))
					return
				}
				Expect(refusal(other)).NotTo(BeNil())
				gateways.Unkeyed(from)
				gateways.Unkeyed(to)
				Expect(victim.Plane.Had(gateways.TunnelName)).To(Equal(gateways.Given{}))
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
		a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
		c, err := b.Connect(ctx)
		Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		Expect(err).NotTo(HaveOccurred())
		defer l.Close()
		a.Goes(func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", l.Addr().String())
		})
		Expect(a.Tunnel.Establish(ctx)).To(MatchError(exchange.Timeout))
		Expect(b.Outcome(ctx)).To(MatchError(exchange.Timeout))
		gateways.Untouched(a, b)
		gateways.StillWorks(ctx, a, b)
	}, SpecTimeout(specTime))
}

// bystander is the honest peer of another tunnel of a gateway's.
func bystander(of *gateways.Gateway) *gateways.Gateway {
	GinkgoHelper()
	const name = "t2"
	cert := identity()
	cfg := exchange.Config{Suites: smallest(), Peer: exchange.Peer{Pin: exchange.PinOf(cert.Leaf)}}
	of.Add(name, cfg)
	cfg.Peer.Pin = exchange.PinOf(of.End.Endpoint.Certificate.Leaf)
	g := gateways.Open(exchangetest.End{Endpoint: exchange.Endpoint{Certificate: cert}, Config: cfg}, name)
	g.Goes(of.Connect)
	return g
}

// crowd is how many hostile connections come.
const crowd = 1000

func crowds() {
	It(fmt.Sprintf("holds little for %d connections that say nothing, and serves an honest peer after them", crowd), func(ctx SpecContext) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest()})
		gateways.Succeeds(gateways.Meet(ctx, a, b)) // what is made once is made
		a.Forget()
		b.Forget()
		before := measure()
		conns := make([]net.Conn, crowd)
		for i := range conns {
			var err error
			conns[i], err = b.Connect(ctx)
			Expect(err).NotTo(HaveOccurred())
		}
		for range 100 { // as they come
			now := measure()
			Expect(now.goroutines-before.goroutines).To(BeNumerically("<=", 2*keyingPlaces), "goroutines")
			Expect(now.heap).To(BeNumerically("<=", before.heap+(32<<20)), "bytes of heap")
			runtime.Gosched()
		}
		honest := make(chan error, 1)
		a.Goes(b.Connect)
		go func() { honest <- a.Tunnel.Establish(ctx) }()
		for _, c := range conns {
			c.Close()
		}
		Expect(<-honest).To(Succeed())
		Eventually(ctx, b.Settled).Should(Receive())
		for range conns {
			Expect(refusal(b.Failure(ctx))).NotTo(BeNil())
		}
		gateways.Keyed(a, b, gateways.TunnelName)
		Expect(b.Plane.Had(gateways.TunnelName)).To(Equal(gateways.Given{In: 2, Out: 2}))
	}, SpecTimeout(specTime))

	It(fmt.Sprintf("installs nothing for %d hostile connections, keeps nothing of them, and serves an honest peer between them", crowd), func(ctx SpecContext) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest()})
		others := bystander(b)
		Expect(others.Tunnel.Establish(ctx)).To(Succeed())
		Expect(b.Outcome(ctx)).To(Succeed())
		known, stranger := a.End.Endpoint.Certificate, identity()
		as := func(c tls.Certificate) *tls.Config {
			return &tls.Config{
				Certificates: []tls.Certificate{c}, InsecureSkipVerify: true, NextProtos: []string{exchange.ALPN},
				CurvePreferences: []tls.CurveID{tls.X25519},
			}
		}
		proposing := newArena(exchange.Config{Suites: smallest()}).record(ctx)[proposal]
		before := measure()
		for i := range crowd {
			c, err := b.Connect(ctx)
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
			Expect(refusal(b.Failure(ctx))).NotTo(BeNil())
			if i%100 == 50 {
				Expect(others.Tunnel.Rekey(ctx)).To(Succeed())
				Expect(b.Outcome(ctx)).To(Succeed())
			}
		}
		gateways.Untouched(b)
		Eventually(ctx, func(g Gomega) { // what ends takes its time on a busy machine
			after := measure()
			g.Expect(after.goroutines-before.goroutines).To(BeNumerically("<=", 20), "goroutines")
			g.Expect(after.heap).To(BeNumerically("<=", before.heap+(8<<20)), "bytes of heap")
		}).Should(Succeed())
		gateways.StillWorks(ctx, a, b)
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
