package topology_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"pqlab/topology"
)

// A planned link knows where its rate was written, for those who find that it cannot be had.
func TestPositions(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte(`nodes:
  - {name: h, kind: host}
  - {name: d, kind: dpu, host: h}
links:
  - {kind: pcie, a: h, b: d, gen: 3, lanes: 8}
  - {kind: ethernet, a: h, b: d, rate: 1Gbit/s}
  - {kind: ethernet, a: h, b: d, rate_trace: [1s 1Gbit/s]}
  - {kind: ethernet, a: h, b: d, delay: 1ms}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := topology.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []topology.Position{{file, 5, 35}, {file, 6, 40}, {file, 7, 46}, {file, 8, 5}} {
		link := topology.Position{File: file, Line: 5 + i, Column: 5}
		if got := plan.Links[i].At; got != (topology.LinkPosition{Link: link, Rate: want}) {
			t.Errorf("link %d: %v, want %v of rate %v", i, got, link, want)
		}
	}
	plan, err = topology.New("x").Host("a").Host("b").
		Ethernet("a", "b", topology.Gbit).
		Plan()
	if at := plan.Links[0].At.Rate; err != nil || at.File != "position_test.go" || at.Line == 0 || at.Column != 0 {
		t.Errorf("of a builder: %v, %v", at, err)
	}
	byHand := topology.Topology{Nodes: top.Nodes[:1]}
	if plan, err = byHand.Plan(); err != nil || len(plan.Links) != 0 {
		t.Fatal(err)
	}
	byHand = topology.Topology{Nodes: top.Nodes, Links: top.Links}
	if plan, err = byHand.Plan(); err != nil || plan.Links[0].At != (topology.LinkPosition{}) {
		t.Errorf("by hand: %+v, %v", plan, err)
	}
	for at, want := range map[topology.Position]string{{}: "", {"a", 3, 0}: "a:3", {"a", 3, 4}: "a:3:4"} {
		if got := at.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// What a topology is does not depend on where it was written.
	if text, err := top.Marshal(); err != nil {
		t.Error(err)
	} else if back, err := topology.Parse("back", text); err != nil || !reflect.DeepEqual(back.Links, top.Links) {
		t.Errorf("%v, %v", back, err)
	}
}
