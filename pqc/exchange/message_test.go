package exchange

import (
	"bytes"
	"testing"
)

// TestProposalRefused alters one field at a time, to values that a signature over them would not make right.
func TestProposalRefused(t *testing.T) {
	t.Parallel()
	// version, tunnel "t", one suite "s", combiner "c", pinned, mutual, SPI, encapsulation, trigger "", replaces, nonce.
	good := append([]byte{1, 1, 't', 0, 2, 1, 's', 1, 'c', 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0}, make([]byte, nonceSize)...)
	if err := new(proposal).decode(good); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		at    int
		value []byte // in place of what is there
	}{
		"version 0":              {0, []byte{0}},
		"version 2":              {0, []byte{2}},
		"tunnel with a newline":  {2, []byte{'\n'}},
		"suite without a name":   {4, []byte{1, 0, 1, 'c', 0}},
		"pinned 2":               {9, []byte{2}},
		"mutual 2":               {10, []byte{2}},
		"SPI 255":                {11, []byte{0, 0, 0, 255}},
		"encapsulation 2":        {15, []byte{2}},
		"replaces 255":           {17, []byte{0, 0, 0, 255}},
		"tunnel beyond the body": {1, []byte{255}},
		"suites beyond the body": {3, []byte{255, 255}},
		"no suites":              {3, []byte{0, 0}},
	} {
		bad := bytes.Clone(good)
		copy(bad[tc.at:], tc.value)
		if err := new(proposal).decode(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	many := []byte{1, 1, 't', 0, 130}
	many = append(many, bytes.Repeat([]byte{1, 's'}, maxSuites+1)...)
	if err := new(proposal).decode(append(many, good[7:]...)); err == nil {
		t.Errorf("%d suites were taken", maxSuites+1)
	}
}

// TestUnwantedSignature: an initiator that signs though the tunnel is not mutual is refused, whatever its MAC is worth.
func TestUnwantedSignature(t *testing.T) {
	t.Parallel()
	d := newDuo(t, mustSuite(t, "mldsa44+mlkem512"), true, false)
	message, e := d.initiator.propose()
	if e != nil {
		t.Fatal(e)
	}
	if message, e = d.takeProposal(message); e != nil {
		t.Fatal(e)
	}
	if message, e = d.initiator.answer(message); e != nil {
		t.Fatal(e)
	}
	if e := d.try(t, typeAnswer, message); e != nil {
		t.Fatal(e)
	}
	d.config[1].Mutual = false
	if e := d.try(t, typeAnswer, message); e == nil || e.Alert != BadMessage {
		t.Errorf("%v", e)
	}
}
