package agent

import "testing"

// Every SA of a tunnel begins after the number that the agent was started with, those of rekeys too.
func TestSequenceNumbers(t *testing.T) {
	t.Parallel()
	const seq = 1<<32 - 5
	a, b := pair(t, Config{Seq: seq}, nil)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Rekey(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		n.plane.mu.Lock()
		if len(n.plane.tunnels["ab"]) < 3 {
			t.Errorf("%d SAs after a rekey", len(n.plane.tunnels["ab"]))
		}
		for spi, sa := range n.plane.tunnels["ab"] {
			if sa.Seq != seq {
				t.Errorf("SA %#08x begins after %d", spi, sa.Seq)
			}
		}
		n.plane.mu.Unlock()
	}
}
