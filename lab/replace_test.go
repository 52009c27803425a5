package lab

import (
	"errors"
	"testing"

	"pqlab/nodes"
	"pqlab/topology"
)

// A tunnel that was replaced has no keys, and gets those of its new suite.
func TestReplaceTunnel(t *testing.T) {
	l := up(t, topology.New("replace").Host("a").Host("b").Ethernet("a", "b").Tunnel("ab", "a", "b", topology.Suite("falcon512+kyber512")), Options{})
	tunnel := l.Tunnel("ab")
	before, err := tunnel.Establish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"dilithium2+kyber512", "mldsa44+mlkem512"} {
		plan := tunnel.Plan
		plan.Suite = suite
		if err := tunnel.Replace(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		for _, node := range []string{"a", "b"} {
			if s, err := tunnel.State(t.Context(), node); err != nil || s.SPIs.In != 0 || s.SPIs.Out != 0 {
				t.Errorf("%s at %s: SAs %+v, %v", suite, node, s.SPIs, err)
			}
		}
		r, err := tunnel.Establish(t.Context())
		if err != nil || r.Suite != suite || r.Transcript == before.Transcript {
			t.Errorf("%s: %+v, %v", suite, r, err)
		}
	}
	other := tunnel.Plan
	other.Name = "other"
	if err := tunnel.Replace(t.Context(), other); err == nil {
		t.Error("became another tunnel")
	}
}

func TestCapCoreNeedsAProfile(t *testing.T) {
	l := up(t, topology.New("cap").Host("a", topology.Profile("jetson-nano")).Host("b").Ethernet("a", "b").Tunnel("ab", "a", "b"), Options{})
	if err := l.Node("b").CapCore(); !errors.Is(err, nodes.ErrNoCgroup) {
		t.Errorf("no profile: %v", err)
	}
	// Where the machine has cgroups for us; the cap itself is tested by package nodes.
	if err := l.Node("a").CapCore(); err != nil && !errors.Is(err, nodes.ErrNoCgroup) {
		t.Error(err)
	}
}
