// Package handshake verifies that only the honest peer of a tunnel gets SAs: of every suite once, and of nobody who
// lies, stalls, replays, downgrades, stands in between, or sends too little or too much.
//
// The gateways are real from the socket to the SAs (keying, exchange, ipsec); the dataplane under them records what is
// installed, so that "no SA" means that none was handed over, and not that an error was returned.
package handshake

import (
	. "github.com/onsi/ginkgo/v2"

	"pqlab/suites/testlab"
)

// Specs are the specs of the claim.
func Specs(e testlab.Env) {
	Describe("the handshake", Label("emu", "vm"), func() {
		e.Guard()
		everySuite()
		forgeries()
		rekeys()
		strangers()
		replays()
		downgrades()
		lengths()
		stalls()
		relays()
		secrets()
		stranger(e)
	})
	// Thousands of exchanges and connections, which no kernel's IPsec takes part in.
	Describe("the handshake", Label("emu"), func() {
		e.Guard()
		flips()
		cuts()
		crowds()
	})
}
