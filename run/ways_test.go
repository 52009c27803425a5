package run

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/lab"
	"pqlab/report"
)

// dead is a lab of which one link lets nothing through.
const dead = `
name: dead
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}]
links:
  - {name: ab, kind: ethernet, a: a, b: b, loss: 100%}
  - {name: bc, kind: ethernet, a: b, b: c}
traffic:
  - {name: bad, from: a, to: b, proto: tcp}
  - {name: lost, from: a, to: b, proto: udp, rate: 1Mbit/s}
  - {name: good, from: b, to: c, proto: tcp}
`

// far is a lab with a station out of range of any rate.
const far = `
name: far
nodes: [{name: ap, kind: ap}, {name: h, kind: host}, {name: near, kind: client}, {name: far, kind: client}]
links:
  - {name: cable, kind: ethernet, a: h, b: ap}
  - {name: n, kind: wifi, a: near, b: ap, wifi: {profile: jetson-ac-2x2-80, distance: 2m}}
  - {name: f, kind: wifi, a: far, b: ap, wifi: {profile: jetson-ac-2x2-80, distance: 10km}}
traffic:
  - {name: bad, from: far, to: h, proto: tcp}
  - {name: down, from: h, to: far, proto: tcp, streams: 2, rate: 3Mbit/s}
  - {name: lost, from: h, to: far, proto: udp, rate: 1Mbit/s}
  - {name: good, from: near, to: h, proto: tcp, rate: 10Mbit/s}
`

// relayed is a lab whose second of three links lets nothing through.
const relayed = `
name: relayed
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}, {name: d, kind: host}]
links:
  - {name: ab, kind: ethernet, a: a, b: b}
  - {name: bc, kind: ethernet, a: b, b: c, loss: 100%}
  - {name: cd, kind: ethernet, a: c, b: d}
traffic:
  - {name: bad, from: a, to: d, via: [b, c], proto: tcp}
  - {name: good, from: a, to: b, proto: tcp}
`

// What the links do not carry fails the checks of what has to pass them, by name, and has its row with the reason; the rest of
// the run counts, and nothing waits without an end.
func TestDoNotCarried(t *testing.T) {
	t.Parallel()
	const unkeyed = "tunnel vpn has no keys"
	for name, tt := range map[string]struct {
		topology string
		way      string            // that failed checks name where they tell of the links
		failed   map[string]string // what the detail of a failed check has, by the check's name
		rows     map[string]string // why a flow was not delivered
		sent     []string          // flows of which something was sent all the same
	}{
		"a flow": {
			dead, "link ab (loss 100%)", map[string]string{"bad arrives": "flow bad", "lost arrives": "nothing"},
			map[string]string{"bad": "flow bad", "lost": "nothing"}, []string{"lost"},
		},
		"a key exchange": {
			dead + "tunnels: [{name: vpn, a: a, b: b, suite: dilithium2+kyber512, deadline: 5s}]\n", "link ab (loss 100%)",
			map[string]string{"tunnel vpn is keyed": "key exchange", "bad arrives": unkeyed, "lost arrives": unkeyed, "link ab carries only ESP": ""},
			map[string]string{"bad": unkeyed, "lost": unkeyed}, nil,
		},
		"a relay's flow": {
			relayed, "link bc (loss 100%)", map[string]string{"bad arrives": "relay"}, map[string]string{"bad": "relay"}, nil,
		},
		"a station out of range": {
			far, "packets given up", map[string]string{
				"bad arrives": "flow bad", "down arrives": "flow down", "lost arrives": "nothing", "lost loses nothing on the way": "",
			}, map[string]string{"bad": "flow bad", "down": "flow down", "lost": "nothing"}, []string{"lost"},
		},
		"a key exchange out of range": {
			far + "tunnels: [{name: vpn, a: far, b: h, suite: dilithium2+kyber512, deadline: 5s}]\n", "packets given up", map[string]string{
				"tunnel vpn is keyed": "key exchange", "bad arrives": unkeyed, "down arrives": unkeyed, "lost arrives": unkeyed,
				"link f carries only ESP": "", "link cable carries only ESP": "",
			}, map[string]string{"bad": unkeyed, "down": unkeyed, "lost": unkeyed}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plan(t, tt.topology)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			const duration = 200 * time.Millisecond
			result, err := Do(ctx, p, Options{Lab: lab.Options{Log: os.Stderr, Shaper: "wire"}, Duration: duration})
			if err != nil {
				t.Fatal(err)
			}
			if result.Verdict() != report.Fail || len(result.Tunnels) != len(p.Tunnels) || len(result.Traffic) != len(p.Traffic) {
				t.Errorf("%+v", result)
			}
			arrived := false
			for _, c := range result.Checks {
				want, fails := tt.failed[c.Name]
				arrived = arrived || c.Name == "good arrives"
				if c.OK == fails || !strings.Contains(c.Detail, want) {
					t.Errorf("%s: %v, %s", c.Name, c.OK, c.Detail)
				}
				if fails && want != unkeyed && want != "" && !strings.Contains(c.Detail, tt.way) {
					t.Errorf("%s names no link: %s", c.Name, c.Detail)
				}
				delete(tt.failed, c.Name)
			}
			if !arrived || len(tt.failed) > 0 {
				t.Errorf("no such checks: %v; %+v", tt.failed, result.Checks)
			}
			for i, f := range result.Traffic {
				if f.Start <= 0 || f.Start > result.Duration || i > 0 && f.Start < result.Traffic[i-1].Start {
					t.Errorf("flow %s starts at %v", f.Name, f.Start)
				}
				why, undelivered := tt.rows[f.Name]
				if (f.Undelivered != "") != undelivered || !strings.Contains(f.Undelivered, why) || undelivered && f.Received != 0 {
					t.Errorf("flow %s: %q, %d received", f.Name, f.Undelivered, f.Received)
				}
				if undelivered && (f.Sent > 0) != slices.Contains(tt.sent, f.Name) {
					t.Errorf("flow %s: %d sent", f.Name, f.Sent)
				}
				want := p.Traffic[i]
				asked := report.Asked{BitsPerSecond: float64(want.Rate), FrameSize: want.FrameSize, Duration: ms(duration)}
				if f.Name != want.Name || f.From != want.From || f.To != want.To || f.Proto != want.Proto || f.Streams != want.Streams || f.Asked != asked {
					t.Errorf("%+v is not what was asked: %+v", f, want)
				}
			}
		})
	}
}
