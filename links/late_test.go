package links

import (
	"strings"
	"testing"
	"time"

	"pqlab/links/wire"
	"pqlab/topology"
)

// One in a hundred packets may come a millisecond late, of as many as have one in a hundred, and none may be missed.
func TestLateBounds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		packets int64
		p99     time.Duration
		missed  uint64
		words   int
	}{
		{100, 990 * time.Microsecond, 0, 0}, {100, time.Millisecond, 0, 0}, {100, 1010 * time.Microsecond, 0, 1},
		{99, time.Second, 0, 0}, {0, 0, 1, 1}, {99, time.Second, 1, 1}, {100, 2 * time.Millisecond, 1, 2},
	} {
		w := Wire{Lateness: wire.Lateness{Packets: tt.packets, P50: tt.p99, P99: tt.p99, Max: 10 * time.Second}, Missed: tt.missed}
		if got := w.Late(); len(got) != tt.words {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// A wire that was not run in time says so of the direction that it was late in, and loses nothing silently.
func TestLate(t *testing.T) {
	made, a, b := pairOf(t, shaped(topology.Shape{Delay: 300 * time.Millisecond}), need(t, "wire"))
	if late := made.Late(); late != nil {
		t.Errorf("nothing was sent: %q", late)
	}
	wire := made.body.(*driven).wire
	p := newProber(t, made, a, b, 100)
	p.pace(enough, 0)
	for made.State().Wire[0].Packets < enough {
	}
	if err := wire.Do(func(time.Duration) { time.Sleep(400 * time.Millisecond) }); err != nil {
		t.Fatal(err)
	}
	p.arrivals(500 * time.Millisecond)
	late := made.Late()
	if len(late) != 1 || !strings.Contains(late[0], "node a") {
		t.Errorf("%q", late)
	}
	// Not run at all, it leaves more in its interface than that has room for.
	if err := wire.Do(func(time.Duration) {
		for range backlog + 500 {
			if err := p.SendTogether(1); err != nil {
				t.Error(err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got := made.State().Wire[0].Missed; got < 400 || got > 600 {
		t.Errorf("%d packets were missed", got)
	}
	if late := made.Late(); len(late) != 2 {
		t.Errorf("%q", late)
	}
}
