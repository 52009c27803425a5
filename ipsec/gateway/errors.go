package gateway

import (
	"errors"

	"pqlab/ipsec/gateway/port"
)

// Errors that a caller may decide on, with errors.Is.
var (
	// ErrNoPort: the machine cannot make the inner port; the message names what is missing and the remedy.
	ErrNoPort = port.ErrUnavailable
	// ErrNoFilter: the kernel has no nftables, so plaintext could not be refused.
	ErrNoFilter error = port.Lack("no packet filter")
	// ErrNoRouting: the kernel has no policy routing.
	ErrNoRouting error = port.Lack("no policy routing")
	// ErrPolicy: a policy that cannot be installed.
	ErrPolicy = errors.New("bad policy")
	// ErrUnknown: there is no such tunnel or SA.
	ErrUnknown = errors.New("not installed")
	// ErrExists: there is one of that name or SPI.
	ErrExists = errors.New("installed already")
	// ErrSPI: an SPI that RFC 4303 reserves.
	ErrSPI = errors.New("SPI is reserved")
	// ErrClosed: the gateway was closed.
	ErrClosed = errors.New("gateway is closed")
)
