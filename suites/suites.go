// Package suites lists the claims that pqlab verifies. Each is a folder of Ginkgo specs, which run as Go tests and by
// pqlab test alike.
package suites

import (
	"pqlab/suites/baseline"
	"pqlab/suites/combine"
	"pqlab/suites/handshake"
	"pqlab/suites/hygiene"
	"pqlab/suites/interop"
	"pqlab/suites/links"
	"pqlab/suites/rekey"
	"pqlab/suites/testlab"
	"pqlab/suites/tunnel"
)

// Claim is a suite.
type Claim struct {
	Name  string
	Text  string // what is claimed
	Specs func(testlab.Env)
}

// Claims lists every suite.
func Claims() []Claim {
	return []Claim{
		{"handshake", "of every suite, only the honest peer of a tunnel gets SAs, whatever others send, withhold, replay or relay", handshake.Specs},
		{"combine", "SA keys are made of both secrets of an exchange, and hidden from whoever lacks one of them", combine.Specs},
		{"rekey", "keys are replaced by time, blocks, bytes, packets and on demand, and no packet is lost", rekey.Specs},
		{"tunnel", "what a tunnel protects passes its links as ESP alone, and nothing false comes out of it", tunnel.Specs},
		{"interop", "user-space and kernel ESP are two ends of one tunnel: each takes what the other sends, and refuses what it should", interop.Specs},
		{"baseline", "a tunnel that strongSwan keys by classical IKEv2 passes the same checks, so that others can be compared with it", baseline.Specs},
		{"links", "a link does to packets what its topology says, by whichever shaper, and something else as soon as that is asked for", links.Specs},
		{"hygiene", "nothing is left of a lab, however it ended: taken down, failed on the way up, or killed at any moment", hygiene.Specs},
	}
}
