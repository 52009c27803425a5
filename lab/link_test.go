package lab

import (
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"

	"pqlab/links"
	"pqlab/links/wifi"
	"pqlab/topology"
	"pqlab/traffic"
)

// A station is moved, and told what to send with, while its packets pass; all of a change holds or nothing of it.
func TestMoveStation(t *testing.T) {
	top := topology.New("x").Client("c").AP("ap").Host("h").
		WiFi("c", "ap", topology.Name("air"), topology.Station{Profile: "jetson-ac-2x2-80", Distance: 3}).
		Ethernet("ap", "h", topology.Name("wire"))
	plan := needShaper(t, top, "wire")
	l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	set := func(link, from string, args ...string) error {
		change, err := topology.ParseChange(args)
		if err != nil {
			t.Fatal(err)
		}
		return l.SetLink(link, from, change)
	}
	station := func() wifi.StationState {
		t.Helper()
		cell, number, ok := l.Link("air").Cell()
		if !ok {
			t.Fatal("no cell")
		}
		return cell.Stations[number]
	}

	var to netip.Addr
	for _, a := range l.Node("h").Plan.Interfaces[0].Addresses {
		if a.Addr().Is4() {
			to = a.Addr()
		}
	}
	p, err := traffic.NewProber(l.Node("c").Namespace().Do, l.Node("h").Namespace().Do, netip.AddrPortFrom(to, 0), 500)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const each = 100
	send := func() {
		t.Helper()
		if err := p.Send(t.Context(), each, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	send()
	near := station()
	if near.Distance != 3 || near.Up.MCS != 9 {
		t.Errorf("at first %+v", near)
	}
	sent := each
	for _, c := range []struct {
		args   []string
		metres float64
		walls  int
		mcs    int // -1: any
		path   int
	}{
		{[]string{"distance=6m"}, 6, 0, -1, 0},
		{[]string{"walls=1", "mcs=3", "max_ampdu=4", "delay=2ms"}, 6, 1, 3, 0},
		{[]string{"distance=2m", "walls=none", "mcs=auto", "max_ampdu=none"}, 2, 0, -1, 0},
		{[]string{"distance=none", "path=[{at: 0s, distance: 4m, walls: 1}]", "mcs=0"}, 4, 1, 0, 1},
		{[]string{"path=none", "distance=3m", "mcs=none", "delay=none"}, 3, 0, -1, 0},
	} {
		done := make(chan error, 1)
		go func() { done <- p.Send(t.Context(), each, time.Millisecond) }()
		if err := set("air", "", c.args...); err != nil {
			t.Fatalf("%q: %v", c.args, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		sent += each
		now, state := station(), l.Link("air").State()
		if now.Distance != c.metres || now.Walls != c.walls || c.mcs >= 0 && (now.Up.MCS != c.mcs || now.Down.MCS != c.mcs) {
			t.Errorf("%q: %v m, %d walls, MCS %d up, %d down", c.args, now.Distance, now.Walls, now.Up.MCS, now.Down.MCS)
		}
		if state.Station == nil || (state.Station.MCS != nil) != (c.mcs >= 0) || len(state.Station.Path) != c.path || c.path == 0 && state.Station.Distance != c.metres {
			t.Errorf("%q: %+v", c.args, state.Station)
		}
	}
	got, err := p.Finish(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if late, repeated := got.Overtaken(); len(got.Arrived) != sent || late+repeated > 0 {
		t.Errorf("%d of %d came, %d late, %d twice", len(got.Arrived), sent, late, repeated)
	}
	after := station()
	if after.Up.Delivered < uint64(sent) || after.Up.SNR != near.Up.SNR {
		t.Errorf("%+v, at first %+v", after, near)
	}

	// What cannot be is refused as a whole.
	var mistakes topology.Errors
	var lacks *links.UnsupportedError
	for _, err := range []error{
		set("air", "", "distance=9m", "rate=1Mbit/s"), set("air", "", "distance=9m", "mcs=9", "path=[{at: 0s, distance: 1m}]"), set("wire", "", "distance=9m"),
	} {
		if !errors.As(err, &mistakes) && !errors.As(err, &lacks) {
			t.Error(err)
		}
	}
	if err := set("air", "c", "distance=9m"); !errors.Is(err, ErrBothWays) {
		t.Error(err)
	}
	if err := set("air", "c", "delay=1ms"); err != nil {
		t.Error(err)
	}
	if now := station(); now.Distance != 3 {
		t.Errorf("after what was refused at %v m", now.Distance)
	}
	if err := set("air", "", "distance=30m"); err != nil {
		t.Error(err)
	}
	// 35 dB for each factor of 10 from 5 m on, and 20 before: 27.2 + 4.4.
	if down := near.Up.SNR - station().Up.SNR; math.Abs(down-31.67) > 0.01 {
		t.Errorf("at 30 m the SNR is %.2f dB less than at 3", down)
	}
}

// A lab whose links are not shaped has no station that could be moved.
func TestMoveUnshapedStation(t *testing.T) {
	l := up(t, topology.New("x").Client("c").AP("ap").WiFi("c", "ap", topology.Name("air"), topology.Station{Profile: "phone-ac-1x1-80"}), Options{Shaper: "none"})
	change, err := topology.ParseChange([]string{"distance=9m"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetLink("air", "", change); !errors.Is(err, links.ErrUnshaped) {
		t.Error(err)
	}
}
