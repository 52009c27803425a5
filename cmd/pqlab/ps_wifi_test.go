package main

import (
	"strings"
	"testing"
	"time"

	"pqlab/supervisor"
)

// What a cell is said to do is what its counters grew by since it was looked at, or since it began.
func TestViewCell(t *testing.T) {
	t.Parallel()
	before := supervisor.WiFiCell{AP: "ap", At: 10 * time.Second, Busy: 3 * time.Second, Stations: []supervisor.WiFiStation{{Name: "phone", Up: supervisor.WiFiDirection{
		MCS: 2, Queued: 99, Packets: 100, Bytes: 10_000, Delivered: 90, DeliveredBytes: 9_000, LostQueue: 4, LostRetries: 6,
		PPDUs: 10, Collisions: 1, MPDUs: 200, Failed: 20, Retries: 19, Airtime: 2 * time.Second,
	}}}}
	now := supervisor.WiFiCell{AP: "ap", At: 12 * time.Second, Busy: 4 * time.Second, Stations: []supervisor.WiFiStation{{Name: "phone", Link: "l", Distance: 7.5, Walls: 2,
		Up: supervisor.WiFiDirection{
			SNR: 31.25, MCS: 7, Streams: 2, PHYRate: 650e6, Queued: 5, Packets: 1100, Bytes: 1_510_000, Delivered: 1085, DeliveredBytes: 1_009_000, LostQueue: 11, LostRetries: 9,
			PPDUs: 60, Collisions: 4, MPDUs: 1450, Failed: 145, Retries: 139, Airtime: 2500 * time.Millisecond,
		},
		Down: supervisor.WiFiDirection{SNR: 36, MCS: 9, Streams: 1, PHYRate: 433e6},
	}}}
	other := before
	other.AP = "other"
	for name, tt := range map[string]struct {
		before        supervisor.WiFiCell
		seconds, busy float64
		up            airView
		cells         string // of the table, for up
	}{
		"since then": {before, 2, 0.5, airView{
			WiFiDirection: supervisor.WiFiDirection{
				SNR: 31.25, MCS: 7, Streams: 2, PHYRate: 650e6, Queued: 5, Packets: 1000, Bytes: 1_500_000, Delivered: 995, DeliveredBytes: 1_000_000, LostQueue: 7, LostRetries: 3,
				PPDUs: 50, Collisions: 3, MPDUs: 1250, Failed: 125, Retries: 120, Airtime: 500 * time.Millisecond,
			}, Goodput: 4e6, PER: 0.1, Share: 0.25, AMPDU: 25,
		}, "31.2 dB|7, 2 streams|650 Mbit/s|4.00 Mbit/s|25.0 %|25.0|10.0 %|120|5|10"},
		"since it began": {supervisor.WiFiCell{}, 12, 1. / 3, airView{
			WiFiDirection: now.Stations[0].Up, Goodput: 8 * 1_009_000 / 12., PER: 0.1, Share: 2.5 / 12, AMPDU: 1450. / 60,
		}, "31.2 dB|7, 2 streams|650 Mbit/s|673 kbit/s|20.8 %|24.2|10.0 %|139|5|20"},
		"another cell": {other, 12, 1. / 3, airView{
			WiFiDirection: now.Stations[0].Up, Goodput: 8 * 1_009_000 / 12., PER: 0.1, Share: 2.5 / 12, AMPDU: 1450. / 60,
		}, "31.2 dB|7, 2 streams|650 Mbit/s|673 kbit/s|20.8 %|24.2|10.0 %|139|5|20"},
	} {
		v := viewCell(now, tt.before)
		if v.AP != "ap" || v.Seconds != tt.seconds || v.Busy != tt.busy || len(v.Stations) != 1 {
			t.Errorf("%s: %+v", name, v)
			continue
		}
		s := v.Stations[0]
		if s.Name != "phone" || s.Link != "l" || s.Distance != 7.5 || s.Walls != 2 || s.Up != tt.up {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, s, tt.up)
		}
		if want := (airView{WiFiDirection: now.Stations[0].Down}); s.Down != want {
			t.Errorf("%s: %+v", name, s.Down)
		}
		plain := strings.NewReplacer("\u202f", " ", "\u00a0", " ").Replace // spaces of numbers
		rows := v.rows()
		if got := plain(strings.Join(rows[2][3:], "|")); got != tt.cells {
			t.Errorf("%s: %s", name, got)
		}
		if got := plain(strings.Join(rows[3][3:], "|")); got != "36.0 dB|9, 1 stream|433 Mbit/s|0 bit/s|0.0 %|-|-|0|0|0" {
			t.Errorf("%s: nothing sent: %s", name, got)
		}
		for _, r := range rows[1:] {
			if len(r) != len(rows[1]) {
				t.Errorf("%s: %d cells in %q", name, len(r), r)
			}
		}
	}
}

// The cell of a lab is seen from outside, with what passed it; on a terminal until Ctrl-C. A lab without airtime has none.
func TestPsWiFi(t *testing.T) {
	needLabs(t)
	if r := pqlab(t, "ps", "--wifi"); r.code != exitUsage {
		t.Errorf("no lab: %d, %s", r.code, r.err)
	}
	pair := upLab(t, "pair")
	if r := pqlab(t, "ps", pair, "--wifi"); r.code != exitUsage || r.out != "" || !strings.Contains(r.err, "airtime") {
		t.Errorf("no airtime: %d, %s%s", r.code, r.out, r.err)
	}
	file := write(t, "name: air\nnodes: [{name: sta, kind: client}, {name: ap, kind: ap}]\nlinks: [{a: sta, b: ap, kind: wifi, wifi: {profile: phone-ac-1x1-80}}]\n")
	if r := pqlab(t, "run", file, "--shaper", "wire"); r.code == exitUnsupported {
		t.Skip(r.err)
	}
	lab := upLab(t, "north-south")
	type views []struct {
		AP       string  `json:"ap"`
		Seconds  float64 `json:"seconds"`
		Busy     float64 `json:"busy_share"`
		Stations []struct {
			Name, Link string
			Up, Down   airView
		} `json:"stations"`
	}
	look := func() views {
		r := pqlab(t, "ps", lab, "--wifi", "--json")
		if r.code != exitOK {
			t.Fatalf("%d, %s", r.code, r.err)
		}
		v := parse[views](t, r.out)
		if len(v) != 1 || v[0].AP != "ap" || len(v[0].Stations) != 1 || v[0].Stations[0].Name != "client" || v[0].Stations[0].Link != "client-ap" {
			t.Fatalf("%+v", v)
		}
		return v
	}
	before := look()[0].Stations[0].Up
	const sent, size = 50, 1000
	script := "for i in $(seq 50); do printf %01000d 0 >/dev/udp/10.0.1.1/9; done"
	if r := pqlab(t, "exec", lab, "client", "--", "bash", "-c", script); r.code != 0 {
		t.Fatalf("sending: %s", r.err)
	}
	var after views
	until(t, "what was sent has arrived", func() bool {
		after = look()
		return after[0].Stations[0].Up.Delivered >= before.Delivered+sent
	})
	v := after[0]
	s := v.Stations[0]
	if s.Up.DeliveredBytes < before.DeliveredBytes+sent*size || s.Up.Airtime <= before.Airtime || s.Up.Packets != s.Up.Delivered+s.Up.LostQueue+s.Up.LostRetries+s.Up.Queued {
		t.Errorf("%+v after %+v", s.Up, before)
	}
	for _, d := range []airView{s.Up, s.Down} {
		if d.SNR < 10 || d.Streams != 2 || d.PHYRate < 50e6 || d.AMPDU < 1 || d.AMPDU > 64 || d.Share <= 0 || d.Share > v.Busy || d.PER < 0 || d.PER > 1 || d.Goodput <= 0 {
			t.Errorf("%+v", d)
		}
	}
	if v.Seconds <= 0 || v.Busy <= 0 || v.Busy > 1 {
		t.Errorf("%+v", v)
	}
	if r := pqlab(t, "ps", lab, "--wifi"); r.code != exitOK || !strings.Contains(r.out, "client") || strings.Contains(r.out, "\x1b") {
		t.Errorf("not on a terminal: %d, %q, %s", r.code, r.out, r.err)
	}

	c, shown, keys := onTerminal(t, "ps", lab, "--wifi")
	until(t, "it is shown again", func() bool { return strings.Count(shown.String(), "cell ap") >= 2 })
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := code(t, c.Wait()); got != exitOK {
		t.Errorf("exit status %d: %q", got, shown)
	}

	c, shown, _ = onTerminal(t, "ps", lab, "--wifi")
	until(t, "it is shown", func() bool { return strings.Contains(shown.String(), "cell ap") })
	if r := pqlab(t, "down", lab); r.code != exitOK {
		t.Fatal(r.err)
	}
	if got := code(t, c.Wait()); got != exitOK {
		t.Errorf("exit status %d when the lab was taken down: %q", got, shown)
	}
}
