package agent

import (
	"testing"

	"pqlab/pqc"
)

// spyKey tells when it was wiped.
type spyKey struct {
	pqc.SigningKey
	wiped int
}

func (k *spyKey) Wipe() { k.wiped++ }

// Signature keys are wiped when the agent ends, those of tunnels that were removed before as well.
func TestSigningKeysAreWiped(t *testing.T) {
	t.Parallel()
	kept, removed := new(spyKey), new(spyKey)
	k := &keyingState{ends: map[string]*end{"kept": {signing: kept}, "fresh": {}}, removed: []*end{{signing: removed}, {}}}
	k.wipe()
	if kept.wiped != 1 || removed.wiped != 1 {
		t.Errorf("wiped %d and %d times", kept.wiped, removed.wiped)
	}
}
