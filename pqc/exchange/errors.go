package exchange

import (
	"errors"
	"fmt"
)

// Alert is the coarse reason that one side gives the other when it ends an exchange. As an error it is what errors.Is
// finds in every failure of this package, whichever side it came from.
type Alert uint8

const (
	Busy           Alert = 1  // try again later
	Refused        Alert = 2  // unknown tunnel, untrusted peer, nothing acceptable in the proposal
	BadSignature   Alert = 3  // post-quantum signature or pinned key
	BadConfirm     Alert = 4  // the two sides have different keys or transcripts
	BadMessage     Alert = 5  // undecodable, of an unexpected type, or too long
	Timeout        Alert = 6  // a step's deadline passed
	Cancelled      Alert = 7  // given up by the user of this package
	Internal       Alert = 8  // out of order on the side that says so
	Disconnected   Alert = 9  // never sent: the connection broke
	BadCertificate Alert = 10 // never sent: TLS has its own alerts. The TLS handshake failed or the peer's certificate is not trusted
)

func (a Alert) Error() string {
	switch a {
	case Busy:
		return "busy"
	case Refused:
		return "proposal refused"
	case BadSignature:
		return "bad signature"
	case BadConfirm:
		return "bad confirmation"
	case BadMessage:
		return "bad message"
	case Timeout:
		return "timeout"
	case Cancelled:
		return "cancelled"
	case Internal:
		return "internal error"
	case Disconnected:
		return "connection broke"
	case BadCertificate:
		return "TLS handshake failed"
	}
	return fmt.Sprintf("unknown alert %d", uint8(a))
}

// Further reasons, which only the side that found them learns.
var (
	ErrConfig    = errors.New("configuration")                              // nothing was sent
	ErrUntrusted = errors.New("peer's certificate is not trusted")          // neither the pin nor the CA fits
	ErrPinnedKey = errors.New("peer's signature key is not the pinned one") // identity pinned
	ErrDowngrade = errors.New("answer is not what was proposed")            // a suite outside the proposal
	ErrTLSGroup  = errors.New("TLS group is not allowed for the tunnel")
	ErrFinished  = errors.New("exchange is over") // Done, Confirm or Close was called before
)

// Error is why an exchange failed. It is both its Alert and its Err.
type Error struct {
	Step   string // "tls", "proposal", "offer", "answer", "confirmation", "done"
	Alert  Alert
	Remote bool  // the peer said so
	Err    error // what this side knows beyond the alert; may be nil
}

func (e *Error) Error() string {
	who := ""
	if e.Remote {
		who = "peer says "
	}
	if e.Err == nil {
		return fmt.Sprintf("exchange: %s: %s%v", e.Step, who, e.Alert)
	}
	return fmt.Sprintf("exchange: %s: %s%v: %v", e.Step, who, e.Alert, e.Err)
}

// Unwrap gives the alert and what is known beyond it.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Alert}
	}
	return []error{e.Alert, e.Err}
}

func fail(step messageType, alert Alert, err error) *Error {
	return &Error{Step: step.String(), Alert: alert, Err: err}
}
