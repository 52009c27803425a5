package ipsec_test

import (
	"context"
	"errors"

	"pqlab/ipsec"
)

// exchange stands for a key exchange over an authenticated connection, whose messages it sends and reads in order.
type exchange interface {
	Initiate(context.Context, ipsec.Proposal) error                      // up to the verified confirmation
	Done(context.Context) error                                          // sends done, waits until the peer ends the connection
	Respond(context.Context, func(ipsec.Proposal) (uint32, error)) error // up to the verified answer
	Confirm(_ context.Context, switched func() error) error              // sends the confirmation, reads done, and ends the connection after switched
	Keys() *ipsec.Keys                                                   // after Initiate or Respond
	Close() error                                                        // breaks off what is not complete
}

var errPeerBusy, errTellBusy = errors.New("peer says busy"), errors.New("tell the peer: busy")

// dialer is a Keyer.
type dialer func(context.Context) (exchange, error)

func (dial dialer) Initiate(ctx context.Context, p ipsec.Proposal, install func(*ipsec.Keys) error) error {
	e, err := dial(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := e.Initiate(ctx, p); err != nil {
		if errors.Is(err, errPeerBusy) {
			return ipsec.ErrBusy
		}
		return err
	}
	if err := install(e.Keys()); err != nil {
		return err
	}
	return e.Done(ctx)
}

// respond answers one connection.
func respond(ctx context.Context, t *ipsec.Tunnel, e exchange) error {
	defer e.Close()
	var r *ipsec.Response
	err := e.Respond(ctx, func(p ipsec.Proposal) (spi uint32, err error) {
		if r, err = t.Accept(p.SPI); err != nil {
			if errors.Is(err, ipsec.ErrBusy) {
				return 0, errTellBusy
			}
			return 0, err
		}
		return r.SPI(), nil
	})
	if r == nil {
		return err
	}
	if err == nil {
		err = r.Install(e.Keys())
	}
	if err == nil {
		err = e.Confirm(ctx, func() error { return r.Finish(nil) })
	}
	return r.Finish(err)
}

// The two sides of a key exchange, as a tunnel sees them: a Keyer where this end begins, Accept where the peer did.
func Example() {
	node := func(ctx context.Context, dataplane ipsec.Dataplane, policy ipsec.Policy, dial dialer, incoming <-chan exchange) error {
		tunnels := ipsec.NewTunnels(dataplane, nil, nil)
		defer tunnels.Close()
		t, err := tunnels.Add(ipsec.Config{Policy: policy, Keyer: dial})
		if err != nil {
			return err
		}
		go func() {
			for e := range incoming {
				go respond(ctx, t, e)
			}
		}()
		if err := t.Establish(ctx); err != nil { // one of the two ends; from here on both rekey
			return err
		}
		<-ctx.Done()
		return nil
	}
	_ = node
	// Output:
}
