package testlab

import (
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"

	"pqlab/internal/vm/guest"
	"pqlab/links/wire"
	"pqlab/probe"
	"pqlab/topology"
)

// Timeouts are longer where the processor is emulated, and only there.
func TestPatience(t *testing.T) {
	for accel, want := range map[string]time.Duration{"": time.Second, "kvm": time.Second, "tcg": slower * time.Second} {
		t.Setenv(guest.Accel, accel)
		got := patient([]any{NodeTimeout(time.Second), "text", SpecTimeout(time.Second), Label("x")})
		if got[0] != NodeTimeout(want) || got[1] != "text" || got[2] != SpecTimeout(want) || Patience(time.Second) != want || Patience(0) != 0 {
			t.Errorf("%q: %v, want %v", accel, got, want)
		}
	}
}

// So are the deadlines of exchanges, but for those that a spec has chosen.
func TestExtend(t *testing.T) {
	const chosen = 3 * time.Second
	for accel, want := range map[string]time.Duration{"kvm": Unstalled, "tcg": Unstalled} {
		t.Setenv(guest.Accel, accel)
		plan, err := topology.New("deadlines").Host("a").Host("b").Host("c").Ethernet("a", "b").Ethernet("b", "c").
			Tunnel("usual", "a", "b").Tunnel("hasty", "b", "c", topology.Deadline(chosen)).Plan()
		if err != nil {
			t.Fatal(err)
		}
		extend(plan)
		extend(plan)
		if usual, hasty := plan.Tunnels[0].Deadline, plan.Tunnels[1].Deadline; usual != want || hasty != chosen {
			t.Errorf("%q: %v and %v, want %v and %v", accel, usual, hasty, want, chosen)
		}
	}
}

// What labels tell of a place is the place, and Ginkgo takes them.
func TestPlace(t *testing.T) {
	for _, accel := range []string{"", "kvm", "tcg"} {
		t.Setenv(guest.Accel, accel)
		p, err := Env{}.Place()
		if err != nil {
			t.Fatal(err)
		}
		if p.Kernel == "" || p.Dataplane == "" || p.Shaper == "" || p.Guest != accel || (p.Note != "") != (accel == "tcg") {
			t.Errorf("%q: %+v", accel, p)
		}
		for name, err := range map[string]error{"tbf": probe.TBF(), "netem": probe.Netem(), "wire": wire.Probe()} {
			if slices.Contains(strings.Split(p.Shaper, "+"), name) != (err == nil) {
				t.Errorf("%s: %v, and shaper %s", name, err, p.Shaper)
			}
		}
		labels := p.Labels()
		for _, l := range labels {
			if clean, err := types.ValidateAndCleanupLabel(l, types.CodeLocation{}); err != nil || clean != l {
				t.Errorf("label %q: %q, %v", l, clean, err)
			}
		}
		if got := PlaceOf(slices.Insert(labels, 0, "emu", "note")); got != p {
			t.Errorf("%+v, want %+v", got, p)
		}
	}
}
