package run

import (
	"testing"
	"time"

	"pqlab/links"
	"pqlab/topology"
)

// What a link does is told with its airtime, and what it was to do and does not.
func TestLinkStatus(t *testing.T) {
	t.Parallel()
	wired, radio := topology.PlannedLink{}, topology.PlannedLink{}
	wired.Shape = topology.Shape{Rate: topology.Mbit}
	radio.WiFi = &topology.Station{Profile: "jetson-ac-2x2-80", Distance: 5}
	air := "airtime of jetson-ac-2x2-80 at 5m"
	for name, tt := range map[string]struct {
		plan    topology.PlannedLink
		shaper  string
		shapes  [2]topology.Shape
		ignored []string
		a, b    string
	}{
		"wire":              {wired, "wire", [2]topology.Shape{{Rate: topology.Mbit}, {}}, nil, "rate 1Mbit/s", "unshaped"},
		"radio":             {radio, "wire", [2]topology.Shape{{}, {Delay: 5 * time.Millisecond}}, nil, air, air + ", delay 5ms"},
		"radio, without it": {radio, "none", [2]topology.Shape{}, radio.Needs(radio.Shape), "unshaped; lacks " + air, "unshaped; lacks " + air},
		"without its rate":  {wired, "none", [2]topology.Shape{}, wired.Needs(wired.Shape), "unshaped; lacks rate 1Mbit/s", "unshaped; lacks rate 1Mbit/s"},
	} {
		got := linkStatus(tt.plan, links.State{Shaper: tt.shaper, Shapes: tt.shapes}, tt.ignored)
		if got.FromA.Text != tt.a || got.FromB.Text != tt.b {
			t.Errorf("%s: %q and %q, want %q and %q", name, got.FromA.Text, got.FromB.Text, tt.a, tt.b)
		}
		if got.FromA.Rate != uint64(tt.shapes[0].Rate) || got.FromB.Delay != tt.shapes[1].Delay {
			t.Errorf("%s: %+v", name, got)
		}
	}
	moved := linkStatus(radio, links.State{Shaper: "wire", Station: &topology.Station{Profile: "jetson-ac-2x2-80", Distance: 9, Walls: 1}}, nil)
	if want := "airtime of jetson-ac-2x2-80 at 9m behind 1 wall"; moved.FromA.Text != want || moved.FromB.Text != want {
		t.Errorf("moved: %q and %q", moved.FromA.Text, moved.FromB.Text)
	}
}
