package lab

import (
	"slices"
	"testing"
	"time"

	"pqlab/topology"
)

// A lab that is to know which of its rates cannot be had finds those, comes up all the same, and its links are as before.
func TestReach(t *testing.T) {
	plan := needShaper(t, topology.New("x").Host("a").Host("b").
		Ethernet("a", "b", topology.Name("slow"), 10*topology.Mbit).
		Ethernet("a", "b", topology.Name("bare")).
		Ethernet("a", "b", topology.Name("sent"), 300*topology.Mbit).
		Ethernet("a", "b", topology.Name("fast"), topology.Tbit).
		Ethernet("a", "b", topology.Name("trace"), topology.RateTrace(topology.RateStep{Length: time.Second, Rate: 100 * topology.Gbit})).
		Ethernet("a", "b", topology.Name("again"), topology.Tbit), "wire")
	for i := range plan.Links {
		plan.Links[i].At.Rate = topology.Position{File: "x.yaml", Line: i + 1, Column: 9}
	}
	for _, asked := range []bool{true, false} {
		l, err := Up(t.Context(), plan, Options{Shaper: "wire", Reach: asked})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Down(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		var names []string
		for _, u := range l.Unreached {
			if u.Link == "sent" { // a machine that is busy enough does not send it
				if u.Wanted != 3e8 || u.Most >= 3e8 || u.Most <= 0 {
					t.Errorf("%+v", u)
				}
				continue
			}
			names = append(names, u.Link)
			if p := plan.Links[slices.IndexFunc(plan.Links, func(p topology.PlannedLink) bool { return p.Name == u.Link })]; u.At != p.At.Rate || u.Wanted != float64(fastest(p.Shape)) || u.Most >= u.Wanted {
				t.Errorf("%+v", u)
			}
		}
		want := []string{"fast", "trace", "again"}
		if !asked {
			want = nil
		}
		if !slices.Equal(names, want) {
			t.Errorf("asked %v: %q, want %q", asked, names, want)
		}
		for _, p := range plan.Links {
			if got := l.Link(p.Name).State().Shapes; got[0].String() != p.Shape.String() || got[1].String() != p.Shape.String() {
				t.Errorf("link %s is left with %v", p.Name, got)
			}
		}
	}
}
