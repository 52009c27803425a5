package run

import (
	"testing"

	"pqlab/ipsec"
	"pqlab/topology"
)

// An SA that goes on far beyond its limit was not replaced, whatever the rekeys that were told.
func TestSpent(t *testing.T) {
	t.Parallel()
	limits := topology.Limits{Blocks: 1000, Bytes: 16000, Packets: 100}
	for _, c := range []struct {
		used ipsec.Counters
		want bool
	}{
		{ipsec.Counters{}, false},
		{ipsec.Counters{Blocks: 1100, Bytes: 17000, Packets: 110}, false},
		{ipsec.Counters{Blocks: 2000}, true},
		{ipsec.Counters{Bytes: 32000}, true},
		{ipsec.Counters{Packets: 200}, true},
	} {
		if got := spent(c.used, limits); got != c.want {
			t.Errorf("%+v: %v", c.used, got)
		}
		if spent(c.used, topology.Limits{}) {
			t.Errorf("%+v: spent without limits", c.used)
		}
	}
}
