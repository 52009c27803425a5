package ipsec

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
)

// ErrBusy is how an end refuses an exchange because another one is under way. It is no failure: the one who began
// waits and tries again if it still needs to.
var ErrBusy = errors.New("another exchange of the tunnel is under way")

// ErrClosed is the answer of a tunnel that was closed.
var ErrClosed = errors.New("tunnel is closed")

// ErrAbandoned is how an exchange ends that the end which began it gave up before its keys were installed: it gave way to
// one of the other end's, or nobody needs it any more. It is no failure.
var ErrAbandoned = errors.New("exchange abandoned")

// Keys are what an exchange agreed on, as one end sees it: SPI, Key and Salt of both SAs. In.SPI is the SPI that this
// end chose, Out.SPI the peer's. A ReplayWindow and a Seq are passed on; the limits are the tunnel's to fill in.
type Keys struct{ In, Out SA }

// Wipe overwrites the key material of both directions.
func (k *Keys) Wipe() {
	k.In.Wipe()
	k.Out.Wipe()
}

// check refuses keys that would be unsafe to install.
func (k *Keys) check(spi uint32) error {
	switch {
	case k.In.SPI != spi:
		return fmt.Errorf("key exchange gave inbound SPI %#08x where %#08x was chosen", k.In.SPI, spi)
	case k.Out.SPI < minSPI:
		return fmt.Errorf("peer chose SPI %#08x; those below %#x are reserved (RFC 4303 section 2.1)", k.Out.SPI, minSPI)
	case subtle.ConstantTimeCompare(k.In.Key[:], k.Out.Key[:]) == 1:
		return errors.New("key exchange gave one key for both directions, which would repeat nonces")
	}
	return nil
}

// Proposal is what the initiator of an exchange says of the tunnel.
type Proposal struct {
	SPI      uint32  // inbound, chosen for the new SA
	Trigger  Trigger // for information
	Replaces uint32  // inbound SPI of the SA that is in use; 0 if there is none. For information
}

// Keyer runs key exchanges with the peer of one tunnel.
//
// An exchange has five messages, of which the initiator (I) and the responder (R) each send in turn:
//
//	I proposal       with I's inbound SPI
//	R signed offer   with R's inbound SPI
//	I answer         R verifies it, installs its inbound SA, and only then goes on
//	R confirmation   I verifies it, installs its inbound SA and switches its outbound one
//	I done           R switches its outbound SA, and ends the connection so that I knows
type Keyer interface {
	// Initiate runs one exchange. When the confirmation is verified it calls install, once, and sends done if that
	// returned nil. install wipes the keys.
	//
	// A nil error means that the peer received done. An error after install makes the tunnel assume that the peer
	// may not have, which is always safe: the old inbound SA then stays until an exchange completes. ErrBusy, wrapped
	// or not, means that the peer refused because of another exchange. Initiate limits the time of its steps itself
	// and returns soon after ctx ends.
	Initiate(ctx context.Context, p Proposal, install func(*Keys) error) error
}
