package links

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pqlab/internal/netns"
	"pqlab/topology"
)

const cellLab = `
name: cell
nodes:
  - {name: phone, kind: client}
  - {name: jetson, kind: client}
  - {name: ap, kind: ap}
links:
  - {a: phone, b: ap, kind: wifi, delay: 2ms, wifi: {profile: phone-ac-1x1-80}}
  - {a: ap, b: jetson, kind: wifi, wifi: {profile: jetson-ac-2x2-80}}
`

// The links at an access point are one medium, by whatever end they are named; each is changed and closed by itself.
func TestCell(t *testing.T) {
	need(t, "wire")
	top, err := topology.Parse("cell.yaml", []byte(cellLab))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for i := range plan.Links {
		plan.Links[i].A.Interface, plan.Links[i].B.Interface = "eth0", "eth7"
	}
	shaper, err := Choose(plan.Links, "")
	if err != nil {
		t.Fatal(err)
	}
	phone, a, b := pairOf(t, plan.Links[0], shaper)
	jetson, c, d := pairOf(t, plan.Links[1], shaper)
	pass := func(l *Link, side int, from, to *netns.Namespace, least time.Duration) {
		t.Helper()
		const n = 300
		before := l.State().Wire[side].Packets
		p := proberTo(t, l, side, from, to, 1000)
		p.pace(n, 0)
		got := p.arrivals(500 * time.Millisecond)
		if late, repeated := got.Overtaken(); len(got.Arrived) != n || late+repeated > 0 {
			t.Errorf("%s, side %d: %d of %d came, %d overtaken, %d repeated", l.Name, side, len(got.Arrived), n, late, repeated)
		}
		if first := got.Delays()[0]; first < least+50*time.Microsecond { // a preamble, and what comes before it
			t.Errorf("%s, side %d: the first came after %v", l.Name, side, first)
		}
		if s := l.State(); s.Wire[side].Packets != before+n || s.Shaper != "wire" || !s.Seeded {
			t.Errorf("%s: %+v", l.Name, s)
		}
	}
	pass(phone, 0, a, b, 2*time.Millisecond)
	pass(phone, 1, b, a, 2*time.Millisecond)
	pass(jetson, 0, c, d, 0)
	pass(jetson, 1, d, c, 0)
	for i, l := range []*Link{phone, jetson} {
		cell, number, ok := l.Cell()
		if !ok || number != i || len(cell.Stations) != 2 {
			t.Fatalf("%s: station %d of %+v, %v", l.Name, number, cell, ok)
		}
		if s := cell.Stations[number]; s.Name != []string{"phone", "jetson"}[i] || s.Up.Delivered != 300 || s.Down.Delivered != 300 {
			t.Errorf("%+v", s)
		}
	}
	set := func(s topology.Shape) error {
		return phone.Set(func(now [2]topology.Shape) ([2]topology.Shape, error) { return [2]topology.Shape{s, now[1]}, nil })
	}
	var unsupported *UnsupportedError
	if err := set(topology.Shape{Delay: time.Millisecond, Loss: 0.1}); !errors.As(err, &unsupported) || !slices.Equal(unsupported.Links[0].Needs, []string{"loss 10%"}) {
		t.Error(err)
	}
	if err := set(topology.Shape{Delay: 30 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	pass(phone, 0, a, b, 30*time.Millisecond)
	pass(phone, 1, b, a, 2*time.Millisecond)
	// A station is changed with its delays or not at all, and the other has nothing of it.
	move := func(l *Link, s topology.Shape, change func(*topology.Station)) error {
		return l.SetStation(func(now [2]topology.Shape, station topology.Station) ([2]topology.Shape, topology.Station, error) {
			change(&station)
			return [2]topology.Shape{s, now[1]}, station, nil
		})
	}
	if err := move(phone, topology.Shape{Delay: 5 * time.Millisecond}, func(s *topology.Station) { s.Distance, s.Walls, s.MaxAMPDU = 9, 1, 8 }); err != nil {
		t.Fatal(err)
	}
	pass(phone, 0, a, b, 5*time.Millisecond)
	for name, err := range map[string]error{
		"a loss":        move(phone, topology.Shape{Loss: 0.1}, func(s *topology.Station) { s.Distance = 2 }),
		"another radio": move(phone, topology.Shape{}, func(s *topology.Station) { s.Profile = "jetson-ac-2x2-80" }),
		"no radio":      move(phone, topology.Shape{}, func(s *topology.Station) { s.Profile = "x" }),
		"no place":      move(phone, topology.Shape{}, func(s *topology.Station) { s.Distance = -1 }),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	near, far := jetson.State().Station, phone.State()
	if near.Distance != 5 || far.Station.Distance != 9 || far.Station.MaxAMPDU != 8 || far.Shapes[0].Delay != 5*time.Millisecond {
		t.Errorf("%+v, %+v", near, far)
	}
	cell, _, _ := phone.Cell()
	if cell.Stations[0].Distance != 9 || cell.Stations[0].Walls != 1 || cell.Stations[1].Distance != 5 {
		t.Errorf("%+v", cell.Stations)
	}
	pass(jetson, 0, c, d, 0)
	plain, _, _ := pairOf(t, planned("plain"), shaper)
	if err := move(plain, topology.Shape{}, func(*topology.Station) {}); !errors.Is(err, ErrNoAirtime) || plain.State().Station != nil {
		t.Error(err)
	}
	if err := phone.Close(); err != nil {
		t.Fatal(err)
	}
	if left := interfaces(t, b); left != nil {
		t.Errorf("left: %v", left)
	}
	pass(jetson, 1, d, c, 0)
	for range 2 {
		if err := errors.Join(jetson.Close(), phone.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, _, ok := jetson.Cell(); ok {
		t.Error("a closed cell tells of itself")
	}
	if left := interfaces(t, c); left != nil {
		t.Errorf("left: %v", left)
	}
	// And all anew.
	again, a, b := pairOf(t, plan.Links[0], shaper)
	pass(again, 0, a, b, 2*time.Millisecond)

	if err := again.Abandon(); err != nil {
		t.Error(err)
	}
	if _, _, ok := again.Cell(); ok {
		t.Error("an abandoned cell tells of itself")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	stranger := plan.Links[0]
	stranger.Name = "stranger"
	nss := spaces(t, 2)
	if _, err := Make(stranger, nss[0], nss[1], shaper); err == nil {
		t.Error("a link of which the cell knows nothing was made")
	}
	if left := interfaces(t, nss[0]); left != nil {
		t.Errorf("left: %v", left)
	}
}
