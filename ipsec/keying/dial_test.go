package keying_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
)

// A peer that is silent from the start holds an exchange up for one deadline and no longer.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	for deadline, want := range map[time.Duration]time.Duration{time.Second: time.Second, 0: exchange.DefaultDeadline} {
		synctest.Test(t, func(t *testing.T) {
			s := keying.New(exchange.Endpoint{}, nil, nil)
			s.Dial = func(ctx context.Context, _ keying.Peer) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			s.Trust(keying.Peer{Tunnel: "t", Config: exchange.Config{Deadline: deadline}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			err := s.Keyer("t").Initiate(ctx, ipsec.Proposal{SPI: 5000}, nil)
			if took := time.Since(began); took != want || !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("deadline %v: after %v: %v", deadline, took, err)
			}
		})
	}
}
