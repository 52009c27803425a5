package xfrm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pqlab/ipsec/plaintext"
	"pqlab/ipsec/route"
)

// Errors that a caller may decide on, with errors.Is, besides those of package ipsec. What the machine lacks is
// errors.ErrUnsupported too.
var (
	// ErrNoESP: the kernel has no IPsec, or no ESP with AES-GCM.
	ErrNoESP = fmt.Errorf("the kernel has no ESP: %w", errors.ErrUnsupported)
	// ErrNoStatistics: the kernel does not count what it refuses.
	ErrNoStatistics = fmt.Errorf("the kernel does not count what its IPsec refuses: %w", errors.ErrUnsupported)
	// ErrSuperPackets: the kernel may count many packets as one.
	ErrSuperPackets = fmt.Errorf("the kernel may count super-packets as one packet: %w", errors.ErrUnsupported)
	// ErrNoFilter: the kernel has no nftables, so plaintext could not be counted.
	ErrNoFilter = plaintext.ErrUnavailable
	// ErrNoRouting: the kernel has no policy routing.
	ErrNoRouting = route.ErrUnavailable
	// ErrLimit: a hard limit that one packet may pass.
	ErrLimit = errors.New("hard limit is too low for the kernel to keep")
	// ErrWindow: a replay window that the kernel does not take.
	ErrWindow = errors.New("replay window is too large for the kernel")
	// ErrClosed: the dataplane was closed.
	ErrClosed = errors.New("xfrm dataplane is closed")
)

// Needs is what it takes that the kernel has ESP, and Instead what there is where it has not.
const (
	Needs = "CONFIG_INET_ESP, CONFIG_INET6_ESP, CONFIG_XFRM_USER, CONFIG_XFRM_STATISTICS and CONFIG_CRYPTO_GCM " +
		"(modules esp4, esp6, xfrm_user, seqiv, gcm)"
	Instead = "--dataplane gateway does the same in user space"
)

// noESP makes of the kernel's refusal of an SA an ErrNoESP, where it is one.
func noESP(err error) error {
	for _, e := range []error{
		unix.EPROTONOSUPPORT, // no type for ESP in this family; of a socket: no XFRM_USER
		unix.ENOSYS,          // "Requested AEAD algorithm not found"
		unix.ENOENT,          // the algorithm could not be made
		unix.EAFNOSUPPORT, unix.EOPNOTSUPP,
	} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w (it takes %s): %w; %s", ErrNoESP, Needs, err, Instead)
		}
	}
	return err
}
