package gateway

import (
	"testing"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
)

// Whoever is told of a limit reads the counters, and must not find them below it.
func TestCountersAreThereWhenALimitIsTold(t *testing.T) {
	t.Parallel()
	tell := newExpiries() // nobody delivers: what was told waits
	sa := ipsec.SA{SPI: 256, Soft: ipsec.Limits{Packets: 3}, Hard: ipsec.Limits{Blocks: 8}}
	o, err := newOutbound(&tunnel{policy: ipsec.Policy{Tunnel: "t"}}, &sa)
	if err != nil {
		t.Fatal(err)
	}
	const n = 20 // two blocks
	buf := make([]byte, esp.Size(n))
	for range 5 {
		told := len(tell.pending)
		o.seal(buf, n, esp.IPv4, tell)
		if len(tell.pending) == told {
			continue
		}
		// The loop publishes for itself only when it has sealed all that came together.
		switch c := o.counters(); tell.pending[told].Trigger {
		case ipsec.ByPackets:
			if c.Packets != 3 {
				t.Errorf("told of the 3rd packet with %+v", c)
			}
		case ipsec.ByBlocks:
			if c.Blocks != 8 {
				t.Errorf("told of the 8th block with %+v", c)
			}
		}
	}
	if len(tell.pending) != 2 {
		t.Errorf("told %+v", tell.pending)
	}
}
