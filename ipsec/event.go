package ipsec

import "time"

// EventKind says what happened to a tunnel.
type EventKind string

const (
	Established EventKind = "established" // traffic is protected where no SA was before
	Rekeyed     EventKind = "rekeyed"     // new SAs are in use in both directions
	Retired     EventKind = "retired"     // an inbound SA that was replaced is gone, its grace over
	Failed      EventKind = "failed"      // an exchange failed; what was installed before stays in use
	Expired     EventKind = "expired"     // a hard limit: nothing more goes through the SA that it names
	Removed     EventKind = "removed"     // the tunnel was closed
)

// SPIPair names the SAs of a tunnel in both directions; 0 is none.
type SPIPair struct{ In, Out uint32 }

// Usage is what passed through the SAs of a tunnel.
type Usage struct{ In, Out Counters }

// Event is one thing that happened to a tunnel.
type Event struct {
	Tunnel    string
	Kind      EventKind
	Trigger   Trigger // of an exchange or an expiry
	Initiator bool    // this end began the exchange
	At        time.Time
	Old, New  SPIPair

	// Usage of the Old SAs: when the exchange was triggered, and when they were replaced. The outbound SA's Replaced
	// is final; the inbound one's final count is in the Retired event.
	Triggered, Replaced Usage

	// Duration of the exchange, by the machine's clock even where the tunnel waits by another: from its first
	// message to the end of its last.
	Duration time.Duration
	Err      error // of Failed
}

// eventBuffer is how many events wait for a slow reader before further ones are dropped and counted.
const eventBuffer = 4096
