// Package exchangetest makes peers for tests of key exchanges: pairs that trust each other, peers that alter what they
// say, and a man in the middle who has stolen the keys of both certificates.
package exchangetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"pqlab/pqc/exchange"
)

// End is one side of an exchange.
type End struct {
	Endpoint exchange.Endpoint
	Config   exchange.Config
}

// Pair makes two ends with new certificates that pin each other. Everything else of their Configs is cfg's.
func Pair(cfg exchange.Config) (initiator, responder End, err error) {
	for _, e := range []struct {
		end, peer *End
		name      string
	}{{&initiator, &responder, "initiator"}, {&responder, &initiator, "responder"}} {
		if e.end.Endpoint.Certificate, err = exchange.NewIdentity(e.name, nil); err != nil {
			return End{}, End{}, err
		}
	}
	initiator.Config, responder.Config = cfg, cfg
	initiator.Config.Peer = exchange.Peer{Pin: exchange.PinOf(responder.Endpoint.Certificate.Leaf)}
	responder.Config.Peer = exchange.Peer{Pin: exchange.PinOf(initiator.Endpoint.Certificate.Leaf)}
	return initiator, responder, nil
}

// Pinned gives both ends of cfg's pair long-lived keys of the scheme of the first suite.
func Pinned(initiator, responder *End) error {
	scheme := initiator.Config.Suites[0].Signature
	a, err := scheme.GenerateKey()
	if err != nil {
		return err
	}
	b, err := scheme.GenerateKey()
	if err != nil {
		return err
	}
	aPublic, err := scheme.ParsePublicKey(a.PublicKey())
	if err != nil {
		return err
	}
	bPublic, err := scheme.ParsePublicKey(b.PublicKey())
	if err != nil {
		return err
	}
	initiator.Config.Pinned = &exchange.Pinned{Own: a, Peer: bPublic}
	responder.Config.Pinned = &exchange.Pinned{Own: b, Peer: aPublic}
	return nil
}

// Result of an exchange on both sides. A session that was made and then ended with an error, which can happen to both
// sides after the fourth message, is there beside its error.
type Result struct {
	Initiator, Responder       *exchange.Session
	InitiatorErr, ResponderErr error
}

// Wipe wipes what sessions there are.
func (r *Result) Wipe() {
	for _, s := range []*exchange.Session{r.Initiator, r.Responder} {
		if s != nil {
			s.Wipe()
		}
	}
}

// Run does a whole exchange over two connected ends. The initiator proposes SPI 0x1001, the responder has 0x2002.
func Run(ctx context.Context, initiator, responder End, toResponder, toInitiator net.Conn) (r Result) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		lookup := func(exchange.Hello) (exchange.Config, exchange.Accept, error) {
			return responder.Config, func() (uint32, error) { return 0x2002, nil }, nil
		}
		r.Responder, r.ResponderErr = exchange.Respond(ctx, toInitiator, responder.Endpoint, lookup)
		if r.ResponderErr == nil {
			r.ResponderErr = r.Responder.Confirm(ctx, nil)
		}
	}()
	r.Initiator, r.InitiatorErr = exchange.Initiate(ctx, toResponder, initiator.Endpoint, initiator.Config, Proposal())
	if r.InitiatorErr == nil {
		r.InitiatorErr = r.Initiator.Done(ctx)
	}
	<-done
	return r
}

// Proposal is the one that Run makes.
func Proposal() exchange.Proposal {
	return exchange.Proposal{Tunnel: "t1", SPI: 0x1001, Trigger: "demand"}
}

// Loopback connects two TCP sockets on 127.0.0.1.
func Loopback() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if b, err = l.Accept(); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// Flip is a Config.Tamper that flips the bits of mask in one byte of one message; the header's four bytes count.
// Messages are numbered as in docs/exchange.md: 1 proposal, 2 offer, 3 answer, 4 confirmation, 5 done.
func Flip(message byte, offset int, mask byte) func([]byte) []byte {
	return func(m []byte) []byte {
		if m[0] == message && offset < len(m) {
			m = append([]byte(nil), m...)
			m[offset] ^= mask
		}
		return m
	}
}

// Relay stands between an initiator and a responder with the certificates and keys of both: it ends the TLS session of
// each, and passes on every byte inside, until one of them hangs up. It returns what passed from the initiator and
// from the responder.
func Relay(
	ctx context.Context, toInitiator, toResponder net.Conn, asResponder, asInitiator tls.Certificate,
) (fromInitiator, fromResponder int64, err error) {
	defer toInitiator.Close()
	defer toResponder.Close()
	server := tls.Server(toInitiator, relayConfig(asResponder))
	client := tls.Client(toResponder, relayConfig(asInitiator))
	if err := errors.Join(server.HandshakeContext(ctx), client.HandshakeContext(ctx)); err != nil {
		return 0, 0, fmt.Errorf("relay: %w", err)
	}
	back := make(chan int64)
	go func() {
		n, _ := io.Copy(server, client)
		toInitiator.Close()
		back <- n
	}()
	fromInitiator, _ = io.Copy(client, server)
	toResponder.Close()
	return fromInitiator, <-back, nil
}

func relayConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{exchange.ALPN},
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, SessionTicketsDisabled: true,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
}
