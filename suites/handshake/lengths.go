package handshake

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

// cuts break every message off, and shorten it, everywhere.
func cuts() {
	// sweep cuts every message everywhere.
	sweep := func(ctx context.Context, cut func(m []byte, n int) []byte, end bool) {
		GinkgoHelper()
		cfg := exchange.Config{Suites: smallest()}
		var attacks []attack
		for at, m := range newArena(cfg).record(ctx) {
			for n := 0; n < len(m); n += next(n) {
				attacks = append(attacks, attack{at: byte(at), with: func(m []byte) []byte { return cut(m, n) }, end: end})
			}
		}
		inArenas(ctx, cfg, attacks)
	}
	It(fmt.Sprintf("installs nothing when a message breaks off: every %d bytes of every message", stride), func(ctx SpecContext) {
		sweep(ctx, func(m []byte, n int) []byte { return m[:n] }, true)
	}, SpecTimeout(specTime))

	It(fmt.Sprintf("installs nothing when a message is shorter and says so: every %d bytes of every message", stride), func(ctx SpecContext) {
		sweep(ctx, func(m []byte, n int) []byte {
			n = max(n-headerSize, 0)
			return append([]byte{m[0], byte(n >> 16), byte(n >> 8), byte(n)}, m[headerSize:headerSize+n]...)
		}, false)
	}, SpecTimeout(specTime))
}

func lengths() {
	It("installs nothing when a message is longer and says so", func(ctx SpecContext) {
		r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
		for at := byte(proposal); at < messages; at++ {
			for _, more := range []int{1, 48, 1 << 14, 1 << 20} {
				found(r.strike(ctx, attack{at: at, with: func(m []byte) []byte {
					n := len(m) - headerSize + more
					return append([]byte{m[0], byte(n >> 16), byte(n >> 8), byte(n)}, append(m[headerSize:], make([]byte, more)...)...)
				}}))
			}
		}
		gateways.StillWorks(ctx, r.a, r.b)
	}, SpecTimeout(specTime))

	It("refuses a message that is too long by its header, without waiting for the rest", func(ctx SpecContext) {
		r := newArena(exchange.Config{Suites: smallest(), Mutual: true})
		for at := byte(proposal); at < messages; at++ {
			found(r.strike(ctx, attack{at: at, with: func([]byte) []byte { return []byte{at, 0, 0xff, 0xff} }}))
		}
		gateways.StillWorks(ctx, r.a, r.b)
	}, SpecTimeout(specTime))

	It("installs nothing for the right certificate with a chain that is longer than all of an exchange may be", func(ctx SpecContext) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest()})
		long := func(e *exchangetest.End) {
			chain := slices.Clone(e.Endpoint.Certificate.Certificate)
			for range (200 << 10) / len(chain[0]) { // crypto/tls takes 256 KiB
				chain = append(chain, chain[0])
			}
			e.Endpoint.Certificate.Certificate = chain
		}
		x, y := gateways.Twin(a, long), gateways.Twin(b, long)
		v := gateways.Meet(ctx, x, b)
		Expect(v.Responder).To(MatchError(exchange.BadCertificate))
		v2 := gateways.Meet(ctx, a, y)
		Expect(v2.Initiator).To(MatchError(exchange.BadCertificate))
		Expect(refusal(v.Initiator)).NotTo(BeNil())
		Expect(refusal(v2.Responder)).NotTo(BeNil())
		gateways.Untouched(a, b, x, y)
		gateways.StillWorks(ctx, a, b)
	}, SpecTimeout(specTime))

	// An attacker sends without end; the exchange is over long before.
	const most = 16 << 20 // what the sockets of both sides may hold included
	flood := func(c net.Conn, chunk []byte) (sent int) {
		defer c.Close()
		for sent < most {
			n, err := c.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		return sent
	}
	DescribeTable("installs nothing for a peer with the right certificate that sends without end", func(ctx SpecContext, chunk []byte) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest()})
		as := func(g *gateways.Gateway) *tls.Config {
			return &tls.Config{
				Certificates: []tls.Certificate{g.End.Endpoint.Certificate}, InsecureSkipVerify: true,
				ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{exchange.ALPN}, MinVersion: tls.VersionTLS13,
			}
		}
		c, err := b.Connect(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(flood(tls.Client(c, as(a)), chunk)).To(BeNumerically("<", most))
		found(b.Outcome(ctx))
		gateways.Untouched(b)

		l, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		defer l.Close()
		sent := make(chan int, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				sent <- most
				return
			}
			sent <- flood(tls.Server(c, as(b)), chunk)
		}()
		a.Goes(func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", l.Addr().String())
		})
		found(a.Tunnel.Establish(ctx))
		Expect(<-sent).To(BeNumerically("<", most))
		gateways.Untouched(a)
		gateways.StillWorks(ctx, a, b)
	},
		Entry("a message that never ends", append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 1<<14)...)),
		Entry("an offer that never ends", append([]byte{2, 0xff, 0xff, 0xff}, make([]byte, 1<<14)...)),
		Entry("zeros", make([]byte, 1<<14)),
		Entry("alerts", bytes.Repeat([]byte{255, 0, 0, 1, 99}, 3000)),
	)

	It("installs nothing for a TLS handshake that never ends", func(ctx SpecContext) {
		a, b := gateways.Pair(exchange.Config{Suites: smallest()})
		hello := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1<<14)...) // a record of a ClientHello that claims 16 MiB
		copy(hello[5:], []byte{1, 0xff, 0xff, 0xff})
		c, err := b.Connect(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(flood(c, hello)).To(BeNumerically("<", most))
		e := refusal(b.Outcome(ctx))
		Expect(e).NotTo(BeNil())
		Expect(e.Step).To(Equal("tls"))
		gateways.Untouched(b)
		gateways.StillWorks(ctx, a, b)
	}, SpecTimeout(specTime))
}
