package ipsec_test

import (
	"context"
	"errors"
	"net"

	"pqlab/ipsec"
)

// session stands for the authenticated channel and the messages of the key exchange.
type session interface {
	SendProposal(spi uint32) error
	Proposal() (spi uint32, err error)
	Offer(spi uint32) error // sends
	Answer() error          // initiator: reads the offer, sends the answer. Responder: reads it. Then there are keys
	Keys() *ipsec.Keys
	Confirm() error            // sends
	Confirmation() error       // reads
	SendDone() error           // sends, then waits until the peer has closed cleanly
	Done() error               // reads
	Refuse(busy bool)          // sends an alert and breaks the channel off
	Close() error              // cleanly
	IsBusy(alert error) bool   // the alert that the peer sent with Refuse(true)
	Until(ctx context.Context) // breaks the channel off when ctx ends
}

// keyer is the initiator's side.
type keyer struct {
	dial func(context.Context) (session, error)
}

func (k keyer) Initiate(ctx context.Context, spi uint32, install func(*ipsec.Keys) error) error {
	s, err := k.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Until(ctx)
	if err := s.SendProposal(spi); err != nil {
		return err
	}
	if err := s.Answer(); err != nil {
		if s.IsBusy(err) {
			return ipsec.ErrBusy
		}
		return err
	}
	if err := s.Confirmation(); err != nil { // the peer's inbound SA stands
		return err
	}
	if err := install(s.Keys()); err != nil { // ours stands, and the outbound one is in use
		return err
	}
	return s.SendDone()
}

// respond is the responder's side, for each connection that the node's listener accepts.
func respond(ctx context.Context, t *ipsec.Tunnel, s session) error {
	peerSPI, err := s.Proposal()
	if err != nil {
		s.Refuse(false)
		return err
	}
	err = t.Accept(ctx, peerSPI, func(ctx context.Context, spi uint32, install func(*ipsec.Keys) error) error {
		s.Until(ctx)
		if err := s.Offer(spi); err != nil {
			return err
		}
		if err := s.Answer(); err != nil { // verified: there are keys
			return err
		}
		if err := install(s.Keys()); err != nil { // our inbound SA stands
			return err
		}
		if err := s.Confirm(); err != nil {
			return err
		}
		return s.Done()
	})
	if err != nil {
		s.Refuse(errors.Is(err, ipsec.ErrBusy))
		return err
	}
	return s.Close() // clean: it tells the initiator that we switched
}

// A node has one Tunnels over its dataplane. One end of a tunnel establishes it; both rekey it.
func Example() {
	node := func(ctx context.Context, dataplane ipsec.Dataplane, dial func(context.Context) (session, error), listener net.Listener, open func(net.Conn) session) error {
		tunnels := ipsec.NewTunnels(dataplane, nil, nil)
		defer tunnels.Close()
		t, err := tunnels.Add(ipsec.Config{Policy: ipsec.Policy{Tunnel: "t0"}, Keyer: keyer{dial}})
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				go respond(ctx, t, open(c))
			}
		}()
		if err := t.Establish(ctx); err != nil {
			return err
		}
		for e := range tunnels.Events() {
			println(e.Tunnel, e.Kind, e.Trigger)
		}
		return nil
	}
	_ = node
	// Output:
}
