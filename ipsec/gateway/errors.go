package gateway

import (
	"errors"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/port"
	"pqlab/ipsec/plaintext"
	"pqlab/ipsec/route"
)

// Errors that a caller may decide on, with errors.Is.
var (
	// ErrNoPort: the machine cannot make the inner port; the message names what is missing and the remedy.
	ErrNoPort = port.ErrUnavailable
	// ErrNoFilter: the kernel has no nftables, so plaintext could not be refused.
	ErrNoFilter = plaintext.ErrUnavailable
	// ErrNoRouting: the kernel has no policy routing.
	ErrNoRouting = route.ErrUnavailable
	// Of every dataplane.
	ErrPolicy, ErrUnknown, ErrExists, ErrSPI = ipsec.ErrPolicy, ipsec.ErrUnknown, ipsec.ErrExists, ipsec.ErrSPI
	// ErrClosed: the gateway was closed.
	ErrClosed = errors.New("gateway is closed")
)
