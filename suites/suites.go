// Package suites lists the claims that pqlab verifies. Each is a folder of Ginkgo specs, which run as Go tests and by
// pqlab test alike.
package suites

import (
	"pqlab/suites/rekey"
	"pqlab/suites/testlab"
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
		{"rekey", "keys are replaced by time, blocks, bytes, packets and on demand, and no packet is lost", rekey.Specs},
	}
}
