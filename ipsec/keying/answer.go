package keying

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"pqlab/ipsec"
	"pqlab/pqc/exchange"
)

// AcceptedError is the failure of an exchange that its tunnel had accepted: the tunnel tells of it as well.
type AcceptedError struct{ Err error }

func (e *AcceptedError) Error() string { return e.Err.Error() }
func (e *AcceptedError) Unwrap() error { return e.Err }

// Answer takes part in one exchange that a peer began on conn, and owns conn. An error is an *AcceptedError if the
// exchange failed after the tunnel had accepted it, ipsec.ErrBusy if the tunnel was in the middle of another one, and
// ipsec.ErrAbandoned if the peer gave the exchange up before its keys were installed here.
func (s *Service) Answer(ctx context.Context, conn net.Conn) error {
	var response *ipsec.Response
	session, err := exchange.Respond(ctx, conn, s.answering(), func(h exchange.Hello) (exchange.Config, exchange.Accept, error) {
		tunnel, peer, err := s.find(h)
		if err != nil {
			return exchange.Config{}, nil, err
		}
		return peer.Config, func() (spi uint32, err error) {
			if response, err = tunnel.Accept(h.SPI); errors.Is(err, ipsec.ErrBusy) {
				return 0, errors.Join(exchange.Busy, err)
			} else if err != nil {
				return 0, err
			}
			return response.SPI(), nil
		}, nil
	})
	err = abandoned(err) // before Install
	if response == nil {
		return err
	}
	if err == nil {
		defer session.Wipe()
		defer session.Close()
		s.report(reportOf(session))
		err = response.Install(keysOf(session))
	}
	if err == nil {
		err = session.Confirm(ctx, func() error { return response.Finish(nil) })
	}
	if finish := response.Finish(err); finish != nil {
		err = finish
	}
	if err != nil {
		return &AcceptedError{err}
	}
	return nil
}

// answering is the endpoint with the TLS groups of all tunnels: which of them the peer is after is known only when the TLS
// session stands, and then its group is checked again.
func (s *Service) answering() exchange.Endpoint {
	endpoint := s.endpoint
	if len(endpoint.TLSGroups) > 0 {
		return endpoint
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		groups := p.Config.TLSGroups
		if len(groups) == 0 {
			groups = []tls.CurveID{tls.X25519}
		}
		for _, g := range groups {
			if !slices.Contains(endpoint.TLSGroups, g) {
				endpoint.TLSGroups = append(endpoint.TLSGroups, g)
			}
		}
	}
	return endpoint
}

func (s *Service) find(h exchange.Hello) (*ipsec.Tunnel, Peer, error) {
	peer, ok := s.peer(h.Tunnel)
	tunnel := s.tunnels(h.Tunnel)
	if !ok || tunnel == nil {
		return nil, Peer{}, fmt.Errorf("no tunnel %q here", h.Tunnel)
	}
	return tunnel, peer, nil
}
