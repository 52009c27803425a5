package wifi

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pqlab/topology"
)

func TestProfilesAreThoseOfTopologies(t *testing.T) {
	t.Parallel()
	known := topology.Radios()
	slices.Sort(known)
	if mine := slices.Sorted(maps.Keys(Profiles())); !slices.Equal(mine, known) {
		t.Errorf("%v, and topologies name %v", mine, known)
	}
	for name, p := range Profiles() {
		if _, err := New(Config{Stations: []Station{{Profile: p}}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const lab = `
name: cell
seed: 5
nodes:
  - {name: phone, kind: client}
  - {name: jetson, kind: client}
  - {name: server, kind: host}
  - {name: ap, kind: ap, wifi: {width: 40MHz, exponent: 3, interferers: [{duty: 20%, power: -70dBm}]}}
links:
  - {a: phone, b: ap, kind: wifi, delay: 2ms, wifi: {profile: phone-ac-1x1-80, distance: 7m, walls: 2, mcs: 4}}
  - {a: ap, b: jetson, kind: wifi, wifi: {profile: jetson-ac-2x2-80, max_ampdu: 24, path: [{at: 0s, distance: 3m}, {at: 10s, distance: 30m, walls: 1}]}}
  - {a: ap, b: server, kind: ethernet}
`

func planned(t *testing.T) []topology.PlannedLink {
	t.Helper()
	top, err := topology.Parse("cell.yaml", []byte(lab))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan.Links
}

func TestFromPlan(t *testing.T) {
	t.Parallel()
	links := planned(t)
	c, err := FromPlan(links[:2])
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Width: 40, Seed: links[0].Cell.Seed, Radio: Radio{Exponent: 3}, Interferers: []Interferer{{Duty: 0.2, Power: -70}},
		Stations: []Station{
			{Name: "phone", Profile: profile(t, "phone-ac-1x1-80"), Distance: 7, Walls: 2, MCS: ptr(4), UpDelay: 2 * time.Millisecond, DownDelay: 2 * time.Millisecond},
			{Name: "jetson", Profile: profile(t, "jetson-ac-2x2-80"), MaxAMPDU: 24, Path: []Waypoint{{0, 3, 0}, {10 * time.Second, 30, 1}}},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the cell is %+v, want %+v", c, want)
	}
	if _, err := New(c); err != nil {
		t.Error(err)
	}
	if _, err := FromPlan(links); !errors.Is(err, ErrConfig) {
		t.Errorf("with a link that has no airtime: %v", err)
	}
	// The phone is side A of its link, the jetson side B.
	for _, tt := range []struct{ number, side, port int }{{0, 0, 0}, {0, 1, 1}, {1, 0, 3}, {1, 1, 2}} {
		if got := Port(tt.number, links[tt.number], tt.side); got != tt.port {
			t.Errorf("side %d of link %d is port %d, want %d", tt.side, tt.number, got, tt.port)
		}
	}
	s, err := StationOf(links[1], [2]topology.Shape{{Delay: 1}, {Delay: 2}})
	if err != nil || s.UpDelay != 2 || s.DownDelay != 1 {
		t.Errorf("delays %v up, %v down: %v", s.UpDelay, s.DownDelay, err)
	}
}
