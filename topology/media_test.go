package topology_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pqlab/topology"
)

// The links of an access point know its cell, with all defaults, and nothing of the author's.
func TestCells(t *testing.T) {
	t.Parallel()
	mcs := 3
	path := []topology.Waypoint{{At: time.Second, Distance: 3}, {At: 2 * time.Second, Distance: 30, Walls: 1}}
	cell := topology.Cell{Interferers: []topology.Interferer{{Duty: 0.5, Power: -60}}}
	top, err := topology.New("x").Seed(9).
		AP("ap", cell).AP("other").Switch("s").Client("a").Client("b").Client("c").Host("h").
		WiFi("a", "ap", topology.Station{Profile: "phone-ac-1x1-80", Path: path, MCS: &mcs}).
		WiFi("ap", "b", topology.Station{Profile: "iot-n-1x1-20"}).
		WiFi("c", "ap", 100*topology.Mbit, topology.Loss(0.1)).
		WiFi("h", "other", topology.Station{Profile: "jetson-ac-2x2-80", Distance: 7}).
		Ethernet("ap", "s").Ethernet("other", "s").
		Topology()
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	a, b, c, h := p.Links[0], p.Links[1], p.Links[2], p.Links[3]
	if c.Cell != nil || c.WiFi != nil || c.Rate != 100*topology.Mbit {
		t.Errorf("a shaped link has %+v, %+v, %v", c.Cell, c.WiFi, c.Shape)
	}
	if a.Cell == nil || a.Cell != b.Cell || h.Cell == nil || h.Cell == a.Cell || p.Links[4].Cell != nil {
		t.Fatalf("cells %+v", p.Links)
	}
	if a.Cell.AP != "ap" || a.Cell.Width != 80 || !reflect.DeepEqual(a.Cell.Interferers, cell.Interferers) || h.Cell.AP != "other" || h.Cell.Width != 80 {
		t.Errorf("cells %+v and %+v", a.Cell, h.Cell)
	}
	if a.Cell.Seed == h.Cell.Seed || a.Cell.Seed == 0 || a.Cell.Seed == a.Seed {
		t.Errorf("seeds %d and %d", a.Cell.Seed, h.Cell.Seed)
	}
	if !reflect.DeepEqual(a.WiFi.Path, path) || *a.WiFi.MCS != 3 || a.WiFi.Distance != 0 || b.WiFi.Distance != 5 || h.WiFi.Distance != 7 {
		t.Errorf("stations %+v, %+v, %+v", a.WiFi, b.WiFi, h.WiFi)
	}
	a.WiFi.Path[0].Distance, *a.WiFi.MCS, a.Cell.Interferers[0].Duty, p.Nodes[0].WiFi.Interferers[0].Duty = 1000, 9, 1, 1
	if again, err := top.Plan(); err != nil || again.Links[0].WiFi.Path[0].Distance != 3 || *again.Links[0].WiFi.MCS != 3 || again.Links[0].Cell.Interferers[0].Duty != 0.5 {
		t.Errorf("a plan shares memory with its topology: %+v, %v", again.Links[0], err)
	}
}

// PCI Express by its specification: transfers × lanes × 8/10, 128/130 or 242/256.
func TestSlots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		generation, lanes int
		want              topology.Rate
	}{
		{1, 1, 2000 * topology.Mbit},
		{1, 16, 32 * topology.Gbit},
		{2, 4, 16 * topology.Gbit},
		{3, 1, 7876 * topology.Mbit},
		{3, 8, 63_015 * topology.Mbit},
		{3, 16, 126_030 * topology.Mbit},
		{4, 16, 252_061 * topology.Mbit},
		{5, 2, 63_015 * topology.Mbit},
		{5, 16, 504_123 * topology.Mbit},
		{6, 16, 968 * topology.Gbit},
	} {
		p, err := topology.New("x").Host("h").DPU("d", topology.On("h")).PCIe("h", "d", topology.Slot(c.generation, c.lanes)).Plan()
		if err != nil || p.Links[0].Rate != c.want {
			t.Errorf("generation %d x%d: %v, %v; want %v", c.generation, c.lanes, p, err, c.want)
		}
	}
}

// A plan tells of a host that cannot fill the fastest port of its DPU.
func TestSlotNote(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		slot topology.LinkOption
		port []topology.LinkOption
		want bool
	}{
		{topology.Slot(3, 8), []topology.LinkOption{100 * topology.Gbit}, true},
		{topology.Slot(3, 16), []topology.LinkOption{100 * topology.Gbit}, false},
		{topology.Slot(3, 8), []topology.LinkOption{63_015 * topology.Mbit}, false},
		{topology.Slot(3, 8), nil, false},
		{10 * topology.Gbit, []topology.LinkOption{25 * topology.Gbit}, true},
		{topology.MTU(1500), []topology.LinkOption{25 * topology.Gbit}, false},
		{topology.Slot(1, 1), []topology.LinkOption{topology.RateTrace(step(time.Second, topology.Mbit), step(time.Second, 25*topology.Gbit))}, true},
	} {
		p, err := topology.New("x").Host("h").DPU("d", topology.On("h")).Host("o").PCIe("h", "d", c.slot).
			Ethernet("d", "o", topology.Gbit, topology.Name("slow")).Ethernet("o", "d", append(c.port, topology.Name("fast"))...).Plan()
		if err != nil {
			t.Fatal(err)
		}
		told := len(p.Notes) == 1 && strings.Contains(p.Notes[0], "link h-d") && strings.Contains(p.Notes[0], "fast")
		if told != c.want || len(p.Notes) > 1 {
			t.Errorf("%v and %v: notes %q", p.Links[0].Shape, p.Links[2].Shape, p.Notes)
		}
	}
}

func TestAttenuation(t *testing.T) {
	t.Parallel()
	p, err := topology.New("x").Host("a").Host("b").Fibre("a", "b").Fibre("a", "b", topology.Attenuation(0.35)).Ethernet("a", "b").Plan()
	if err != nil {
		t.Fatal(err)
	}
	if got := []float64{p.Links[0].Attenuation, p.Links[1].Attenuation, p.Links[2].Attenuation}; !reflect.DeepEqual(got, []float64{0.2, 0.35, 0}) {
		t.Errorf("attenuations %v", got)
	}
	text, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(text), `"Attenuation":0.35`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	plan := func(b *topology.Builder) *topology.Plan {
		p, err := b.Plan()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := plan(topology.New("x").Host("a")); p.Verify || p.Tolerance != (topology.Tolerance{}) {
		t.Errorf("not verified: %+v", p)
	}
	if p := plan(topology.New("x").Host("a").Verify(topology.Tolerance{})); !p.Verify || p.Tolerance != (topology.Tolerance{Rate: 0.02, Delay: ms, Jitter: ms, Tail: 10 * ms, Confidence: 0.9999}) {
		t.Errorf("defaults: %+v", p.Tolerance)
	}
	all := topology.Tolerance{Rate: 0.1, Delay: 1, Jitter: 2, Tail: 3, Confidence: 0.3}
	if p := plan(topology.New("x").Host("a").Verify(all)); p.Tolerance != all {
		t.Errorf("given: %+v", p.Tolerance)
	}
}

// A distance is refused for the same reasons wherever it is given.
func TestDistance(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"0.1m": 0.1, "20m": 20, "1.5km": 1500, "10km": 10_000, "0m": -1, "0.05m": -1, "10.1km": -1, "20": -1, "-3m": -1, "NaNm": -1, "m": -1} {
		got, err := topology.ParseDistance(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, metres := range []float64{0, -1, 0.09, 10_001, math.NaN(), math.Inf(1)} {
		if topology.CheckDistance(metres) == nil {
			t.Errorf("%v m are taken", metres)
		}
	}
}
